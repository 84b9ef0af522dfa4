"""Hands a finished run to an experiment logger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from ivcp.evaluation.records import Record

COLUMNS = (
    "id", "task", "prompt", "answer", "prediction", "parsed", "score", "failed", "visual_tokens",
    "kept_tokens", "time_to_first_token_ms",
)  # fmt: skip


def track(
    logger: Logger, report: dict[str, Any], records: Sequence[Record], pictures: Sequence[Path]
) -> None:
    """Log configuration, all numbers, a table of predictions and the kept-token pictures.

    A logger that knows no tables or images gets the rest.

    Args:
        logger: Any Lightning logger.
        report: Contents of `metrics.json`.
        records: The run's records.
        pictures: PNG files.
    """
    run = report["run"]
    described = {name: run[name] for name in ("model", "pruner", "dataset", "device", "git")}
    logger.log_hyperparams({**run["config"], "names": described, "versions": run["versions"]})
    blocks = {name: report[name] for name in ("metrics", "efficiency", "tokens")}
    logger.log_metrics({**numbers(blocks), "failed_samples": run["failed_samples"]}, step=0)
    if hasattr(logger, "log_table"):
        rows = [[_cell(getattr(record, name)) for name in COLUMNS] for record in records]
        logger.log_table("predictions", columns=list(COLUMNS), data=rows)
    if pictures and hasattr(logger, "log_image"):
        logger.log_image("kept_tokens", [str(path) for path in pictures])
    logger.finalize("success")


def numbers(tree: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of nested dictionaries under joined names.

    >>> numbers({"a": {"b": 1, "c": None, "d": "text"}})
    {'a/b': 1}
    """
    found: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found[f"{prefix}{name}"] = value
    return found


def _cell(value: Any) -> Any:
    """A table column has one type: boxes and missing values become text."""
    return value if isinstance(value, int | float | str) else json.dumps(value)
