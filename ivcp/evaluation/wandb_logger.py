"""Weights & Biases that never asks and never hangs: without a key it stays on this machine."""

from __future__ import annotations

import json
import netrc
import os
import string
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import WandbLogger

from ivcp.core.errors import UserError

HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")  # machines of the public service, for netrc
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
        if isinstance(self.tags, str):
            raise UserError(f"logger.tags must be a list such as [{self.tags}]; got a text.")
        check_template("name", self.name or "")
        check_template("group", self.group or "")
        for tag in self.tags or ():
            check_template("tags", str(tag))

    def __call__(self, save_dir: str | Path) -> UnattendedWandbLogger:
        """The logger of the run whose `metrics.json` is in a folder."""
        path = Path(save_dir) / "metrics.json"
        known = placeholders(json.loads(path.read_text(encoding="utf-8"))["run"], path.parent)
        tags = [str(tag).format_map(known)[:LONGEST_TAG] for tag in self.tags or ()]
        options = {
            "entity": self.entity,
            "name": " ".join((self.name or "").format_map(known).split()),
            "group": (self.group or "").format_map(known),
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
        mode = os.environ.get("WANDB_MODE", mode)  # the tool's own switch stays in force
        if mode == "online" and not has_key():
            tell("no API key was found")
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
        if mode == "online":
            self._connect()

    def _connect(self) -> None:
        """Start the run now, and offline if the server refuses or does not answer."""
        try:
            _ = self.experiment
        except Exception as error:  # its own error types are known only to wandb itself
            tell(f"the server could not be used ({' '.join(str(error).split())})")
            self._wandb_init["mode"] = "offline"

    def log_summary(self, values: Mapping[str, float]) -> None:
        """Put values into the run's summary without a step."""
        self.experiment.summary.update(dict(values))

    def finalize(self, status: str) -> None:
        """Close the run, so that the next one of a sweep gets its own."""
        super().finalize(status)
        self.experiment.finish()


def check_mode(mode: str) -> None:
    """Refuse an unknown mode with one sentence.

    Raises:
        UserError: `mode` is neither "online" nor "offline".
    """
    if mode not in ("online", "offline"):
        raise UserError(f"logger.mode must be online or offline; got {mode!r}.")


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
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise UserError(f"logger.{key} may hold {known}, and no other braces; got {text!r}.")


def placeholders(run: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """What the placeholders of a run's name, group and tags stand for.

    Args:
        run: `run` of its `metrics.json`.
        folder: Its folder.
    """
    ratio = run["config"]["pruner"].get("keep_ratio", run["ratio"])
    return {
        **{name: run[name] for name in ("model", "pruner", "dataset")},
        "ratio": f"{ratio:g}",
        "layer": "" if run["layer"] is None else str(run["layer"]),
        "variant": run.get("variant", ""),
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
    own = os.environ.get("WANDB_BASE_URL")
    hosts = HOSTS if own is None else (urlparse(own).netloc,)
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        path = Path(name).expanduser() if name else None
        if path is not None and path.is_file():
            try:
                known = netrc.netrc(path)
                return any(known.authenticators(host) for host in hosts)
            except (OSError, netrc.NetrcParseError):
                return False
    return False


def tell(reason: str) -> None:
    """One sentence about falling back."""
    print(
        f"Weights & Biases logs offline, since {reason}; send the run later with wandb sync.",
        file=sys.stderr,
    )
