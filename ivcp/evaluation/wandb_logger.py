"""Weights & Biases that never asks and never hangs: without a key it stays on this machine."""

from __future__ import annotations

import netrc
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import WandbLogger

from ivcp.core.errors import UserError

HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")  # machines of the public service, for netrc
PATIENCE = 30  # seconds until an unreachable server counts as absent


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
        if mode not in ("online", "offline"):
            raise UserError(f"logger.mode must be online or offline; got {mode!r}.")
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

    def finalize(self, status: str) -> None:
        """Close the run, so that the next one of a sweep gets its own."""
        super().finalize(status)
        self.experiment.finish()


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
