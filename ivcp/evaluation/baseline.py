"""The unpruned run that a result is held against."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ivcp.core.comparable import COMPARED, content
from ivcp.core.errors import UserError

TIMED = (*COMPARED, "trainer")
"""Parts of the configuration that must agree for two runs' times to be comparable, too."""
ROOTS = (Path("outputs"), Path("multirun"))
"""Where runs are looked for."""


def find_baseline(
    wanted: str | None, config: dict[str, Any], roots: Iterable[Path] = ROOTS
) -> dict[str, Any] | None:
    """The contents of the baseline's `metrics.json`.

    Args:
        wanted: None for no baseline; "auto" for the newest finished unpruned run with the same
            model, dataset, seed, limit, batch size, generation and trainer; else a run's folder.
        config: Resolved configuration of this run.
        roots: Folders under which "auto" looks.

    Raises:
        UserError: `wanted` names a folder without results.
    """
    if wanted is None:
        return None
    if wanted != "auto":
        return _read(Path(wanted))
    found = [path for root in roots for path in root.glob("**/metrics.json")]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            report = _read(path.parent)
        except UserError:
            continue  # another run's file, torn or foreign: it is no baseline, but no mistake here
        if report["run"].get("pruner") == "none" and not differences(report, config):
            return report
    return None


def differences(report: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """Keys of the configuration in which a finished run differs so that times do not compare."""
    other = report["run"].get("config", {})
    return [key for key in TIMED if content(other.get(key)) != content(config.get(key))]


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "metrics.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        report["run"].keys()
        return report
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"baseline must be null, auto, or the folder of a finished run; {path} cannot be read."
        ) from error
