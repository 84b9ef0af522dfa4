"""What decides the answers of a run: its settings, weights, data, code and library versions."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ivcp
from ivcp.core.family import ModelFamily
from ivcp.results.comparability import settings
from ivcp.results.schema import GitState

if TYPE_CHECKING:  # it imports pandas, and a benchmark does without
    from ivcp.results.run_folder import Identity

DECIDING = (
    "model", "pruner", "tokens", "budget", "budget_over", "dataset", "metric", "batch_size", "seed",
    "limit", "generation", "backend",
)  # fmt: skip
"""Parts of the configuration that decide answers or how they are scored."""

PACKAGES = ("torch", "transformers", "lightning")
PACKAGE = Path(ivcp.__file__).parent


def identity_of(config: dict[str, Any], model: ModelFamily, dataset: Any) -> Identity:
    """What no other run's answers may differ in, so that they are never taken for this run's.

    Args:
        config: The whole resolved configuration.
        model: Gives its weights' identity.
        dataset: Gives that of its data, if it has one.
    """
    values = settings(config, DECIDING).items()
    return {
        **{name: json.dumps(value, sort_keys=True, default=str) for name, value in values},
        **{f"version of {name}": str(value) for name, value in versions().items()},
        "code of ivcp": code(),
        "weights": model.identity(),
        "data": str(getattr(dataset, "identity", "")),
    }


def code(folder: Path = PACKAGE) -> str:
    """A digest of the package's Python files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def versions() -> dict[str, str | None]:
    """Versions of Python, the main libraries and this package."""
    numbers: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:
            numbers[name] = None
    return {**numbers, "ivcp": ivcp.__version__}


def git_state(folder: Path = PACKAGE) -> GitState | None:
    """State of the repository; files that git does not track, such as a report, do not count.

    None outside a repository or without git.
    """
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return GitState(commit=commit, dirty=bool(changed))


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
