"""Which code made a result: versions of the libraries and the state of the repository."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ivcp

PACKAGES = ("torch", "transformers", "lightning")


def versions() -> dict[str, str | None]:
    """Versions of Python, the main libraries and this package."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return {**found, "ivcp": ivcp.__version__}


def git_state(folder: Path = Path(ivcp.__file__).parent) -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a repository or without git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
