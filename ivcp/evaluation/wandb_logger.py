"""Weights & Biases that never asks and never hangs: without a key it stays on this machine."""

from __future__ import annotations

import logging
import netrc
import os
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import WandbLogger

from ivcp.core.errors import UserError
from ivcp.core.fields import check_fields

log = logging.getLogger(__name__)

HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")  # machines of the public service, for netrc
MODES = ("online", "offline", "disabled", "shared", "dryrun", "run")  # of WANDB_MODE
FORBIDDEN, LONGEST_PROJECT = set("/\\#?%:"), 128  # as the service has it
PATIENCE = 30  # seconds until an unreachable server counts as absent
PLACEHOLDERS = ("model", "pruner", "dataset", "ratio", "layer", "variant", "sweep")
SWITCHES = {
    "entity": "WANDB_ENTITY",
    "name": "WANDB_NAME",
    "group": "WANDB_RUN_GROUP",
    "job_type": "WANDB_JOB_TYPE",
    "tags": "WANDB_TAGS",
}
"""Variables of Weights & Biases that win over the configuration."""
LONGEST_TAG = 64  # characters that the service takes


@dataclass(frozen=True, kw_only=True)
class WandbRuns:
    """Makes the logger of each run of a sweep when given the run's `save_dir`.

    `name`, `group` and `tags` may hold `{model}`, `{pruner}`, `{dataset}`, `{layer}`, `{ratio}`
    (1 for an unpruned run), `{variant}` (other settings of the pruner, as given) and `{sweep}` (the
    last two folders of the sweep's path, empty outside of a sweep). What comes out empty is left to
    Weights & Biases, and its own variables, such as WANDB_RUN_GROUP, stay in force.

    Attributes:
        project: Project of Weights & Biases.
        entity: User or team; None is the account's own.
        mode: "online" or "offline".
        name: Of the run.
        group: Of the run; runs of a sweep share it by default.
        job_type: Of the run.
        tags: Of the run, cut after 64 characters.

    Raises:
        UserError: The mode or a placeholder is unknown, or `tags` is a text.
    """

    project: str = "ivcp"
    entity: str | None = None
    mode: str = "online"
    name: str | None = "{model} {pruner} {variant} {ratio} {dataset}"
    group: str | None = "{sweep}"
    job_type: str | None = "evaluation"
    tags: Sequence[str] | None = ("{model}", "{pruner}", "{dataset}", "ratio {ratio}")

    def __post_init__(self) -> None:
        check_mode(self.mode)
        check_project(self.project)
        if isinstance(self.tags, str):
            raise UserError(f"logger.tags must be a list such as [{self.tags}]; got a text.")
        check_fields(self, "logger.")
        check_template("name", self.name or "")
        check_template("group", self.group or "")
        for tag in self.tags or ():
            check_template("tags", str(tag))

    def named(self, names: Mapping[str, Any]) -> Callable[..., UnattendedWandbLogger]:
        """What makes the logger of a run.

        Args:
            names: "model", "pruner", "dataset", "ratio", "layers", and perhaps "variant".
        """
        return partial(self._make, names)

    def _make(self, names: Mapping[str, Any], save_dir: str | Path) -> UnattendedWandbLogger:
        values = placeholders(names, Path(save_dir))
        tags = [str(tag).format_map(values)[:LONGEST_TAG] for tag in self.tags or ()]
        options = {
            "entity": self.entity,
            "name": " ".join((self.name or "").format_map(values).split()),
            "group": (self.group or "").format_map(values),
            "job_type": self.job_type,
            "tags": list(dict.fromkeys(filter(None, tags))),
        }
        chosen = {key: value for key, value in options.items() if SWITCHES[key] not in os.environ}
        return UnattendedWandbLogger(
            save_dir=save_dir,
            project=self.project,
            mode=self.mode,
            **{key: value for key, value in chosen.items() if value},
        )


class UnattendedWandbLogger(WandbLogger):
    """Lightning's logger, online if it can be, else offline with one sentence.

    Args:
        save_dir: Folder for the run's files.
        project: Project of Weights & Biases.
        mode: "online" or "offline".
        options: Further arguments of `wandb.init`, such as `name`, `entity`, `group`, `tags`.

    Raises:
        UserError: `mode` is something else, or the package is missing.
    """

    def __init__(
        self, *, save_dir: str | Path, project: str, mode: str = "online", **options: Any
    ) -> None:
        check_mode(mode)
        check_project(project)
        mode = switched_mode(mode)
        if mode == "online" and not has_key():
            _warn("no API key was found")
            mode = "offline"
        try:
            super().__init__(
                save_dir=save_dir,
                project=project,
                mode=mode,
                settings={"init_timeout": PATIENCE, "login_timeout": PATIENCE, "silent": True},
                **options,
            )
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=wandb needs the package wandb: pip install wandb, or use logger=csv."
            ) from error
        self._wandb_init.pop("anonymous", None)  # Lightning's None makes the library warn
        self._start(mode)

    def _start(self, mode: str) -> None:
        """Start the run now, and offline if the server refuses or does not answer.

        Raises:
            UserError: What the run is made with is refused.
        """
        try:
            _ = self.experiment
        except Exception as error:  # its own error types are known only to wandb itself
            reason = " ".join(str(error).split())
            if mode != "online":
                raise UserError(f"Weights & Biases refuses the run: {reason}") from error
            _warn(f"the server could not be used ({reason})")
            self._wandb_init["mode"] = "offline"
            self._start("offline")

    def log_summary(self, values: Mapping[str, float]) -> None:
        """Put values into the run's summary without a step."""
        self.experiment.summary.update(dict(values))

    def finalize(self, status: str) -> None:
        """Close the run, so that the next one of a sweep gets its own."""
        super().finalize(status)
        self.experiment.finish(exit_code=0 if status == "success" else 1)


def check_mode(mode: str) -> None:
    """Refuse an unknown mode with one sentence.

    Raises:
        UserError: `mode` is neither "online" nor "offline".
    """
    if mode not in ("online", "offline"):
        raise UserError(f"logger.mode must be online or offline; got {mode!r}.")


def check_project(project: str) -> None:
    """Refuse a name that no project can have with one sentence.

    Raises:
        UserError: It is empty, too long, or has one of the characters that the service forbids.
    """
    if not project or len(project) > LONGEST_PROJECT or FORBIDDEN & set(project):
        raise UserError(
            f"logger.project must be a name of 1 to {LONGEST_PROJECT} characters without any of "
            f"{' '.join(sorted(FORBIDDEN))}; got {project!r} (a team goes into logger.entity)."
        )


def switched_mode(mode: str) -> str:
    """The mode, where the variables of Weights & Biases do not say otherwise.

    Raises:
        UserError: WANDB_MODE is unknown.
    """
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        return "disabled"
    mode = os.environ.get("WANDB_MODE", mode)
    if mode not in MODES:
        raise UserError(f"WANDB_MODE must be one of {', '.join(MODES)}; got {mode!r}.")
    return mode


def check_template(key: str, text: str) -> None:
    """Refuse a text with unknown placeholders with one sentence.

    Raises:
        UserError: There is such a placeholder, or a brace without its partner.
    """
    try:
        parts = [part[1:] for part in string.Formatter().parse(text) if part[1] is not None]
        good = all(name in PLACEHOLDERS and not (form or turn) for name, form, turn in parts)
    except ValueError:
        good = False
    if not good:
        names = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise UserError(f"logger.{key} may hold {names}, and no other braces; got {text!r}.")


def placeholders(names: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """What the placeholders of a run's name, group and tags stand for.

    Args:
        names: As in `WandbRuns.named`.
        folder: The run's folder.
    """
    return {
        **{name: names[name] for name in ("model", "pruner", "dataset")},
        "ratio": names["ratio"],
        "layer": "+".join(map(str, names["layers"])),
        "variant": names.get("variant", ""),
        "sweep": sweep_name(folder),
    }


def sweep_name(folder: Path) -> str:
    """The last two folders of the path of the sweep that a run belongs to; "" if to none."""
    for above in folder.resolve().parents:
        if (above / "multirun.yaml").is_file():  # Hydra leaves it at the root of a sweep
            return "/".join(above.parts[-2:])
    return ""


def has_key() -> bool:
    """Whether Weights & Biases will find credentials: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = os.environ.get("WANDB_BASE_URL")
    hosts = HOSTS if server is None else (urlparse(server).netloc,)
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        path = Path(name).expanduser() if name else None
        if path is not None and path.is_file():
            try:
                entries = netrc.netrc(path)
                return any(entries.authenticators(host) for host in hosts)
            except (OSError, netrc.NetrcParseError):
                return False
    return False


def _warn(reason: str) -> None:
    """One sentence about falling back."""
    log.warning(
        "Weights & Biases logs offline, since %s; send the run later with wandb sync.", reason
    )
