"""Where benchmark files lie."""

from __future__ import annotations

import os
from pathlib import Path


def data_root(root: str | None) -> Path:
    """The folder of benchmark files: `root`, else the variable `LMUData`, else `~/LMUData`."""
    return Path(root or os.environ.get("LMUData") or "~/LMUData").expanduser()  # noqa: SIM112
