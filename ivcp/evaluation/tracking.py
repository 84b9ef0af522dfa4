"""Hands a finished run to an experiment logger."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning.pytorch.loggers import Logger

from ivcp.evaluation.records import Record

COLUMNS = (
    "id", "task", "prompt", "answer", "prediction", "parsed", "score", "failed", "visual_tokens",
    "kept_tokens", "time_to_first_token_ms",
)  # fmt: skip
"""Fields of `Record` in the table of predictions."""

SHORT: Mapping[str, str] = MappingProxyType(
    {
        "keep_ratio": "tokens/keep_ratio",
        "layer_average_ratio": "tokens/layer_average_ratio",
        "kv_ratio": "efficiency/kv_cache_ratio",
        "flops_ratio": "efficiency/prefill_flops_ratio",
        "first_token_ms": "efficiency/time_to_first_token_ms/median",
        "prefill_ms": "efficiency/language_prefill_ms/median",
        "pruning_overhead_ms": "efficiency/pruning_overhead_ms/median",
        "decode_ms": "efficiency/decode_ms_per_token/median",
        "samples_per_second": "efficiency/samples_per_second",
        "peak_memory_bytes": "efficiency/peak_memory_bytes",
        "unparsed_rate": "metrics/unparsed_rate",
    }
)
"""Names in the summary, the same for every dataset, and the logged numbers that they repeat."""


def track(
    logger: Logger, report: dict[str, Any], records: Sequence[Record], pictures: Sequence[Path]
) -> None:
    """Log configuration, all numbers, a summary, two tables and the kept-token pictures.

    The table `result` is one row, so that a chart over many runs can read it; `predictions` has one
    row a sample. A logger that knows no summary, tables or images gets the rest.

    Args:
        logger: Any Lightning logger.
        report: Contents of `metrics.json`.
        records: The run's records.
        pictures: PNG files, named by the index of their record.
    """
    run = report["run"]
    logger.log_hyperparams(configuration(run))
    blocks = {name: report[name] for name in ("metrics", "efficiency", "tokens")}
    logged = {**numbers(blocks), "failed_samples": run["failed_samples"]}
    logger.log_metrics(logged, step=0)
    short = summary(run, logged)
    if hasattr(logger, "log_summary"):
        logger.log_summary(short)
    if hasattr(logger, "log_table"):
        result = {**names_of(run), **{name: short.get(name) for name in ("primary_metric", *SHORT)}}
        logger.log_table("result", columns=list(result), data=[list(result.values())])
        rows = [[_cell(getattr(record, name)) for name in COLUMNS] for record in records]
        logger.log_table("predictions", columns=list(COLUMNS), data=rows)
    if pictures and hasattr(logger, "log_image"):
        asked = {record.index: f"{record.question} → {record.prediction}" for record in records}
        captions = [asked.get(int(path.stem.partition("_")[0]), "") for path in pictures]
        logger.log_image("kept_tokens", [str(path) for path in pictures], caption=captions)
    logger.finalize("success")


def configuration(run: dict[str, Any]) -> dict[str, Any]:
    """The resolved configuration, and beside it what the run was made of and on."""
    described = {name: run[name] for name in ("device", "dtype", "attention", "processes", "git")}
    return {**run["config"], "names": names_of(run), **described, "versions": run["versions"]}


def names_of(run: dict[str, Any]) -> dict[str, str]:
    """What tells a run from others; runs that differ in ratio or seed alone share `series`."""
    before = [run["variant"]] if run.get("variant") else []
    before += [] if run["layer"] is None else [f"before layer {run['layer']}"]
    return {
        **{name: run[name] for name in ("model", "pruner", "dataset")},
        "metric": run["primary_metric"]["name"],
        "series": " ".join([run["model"], run["dataset"], run["pruner"], *before]),
    }


def summary(run: dict[str, Any], logged: Mapping[str, float]) -> dict[str, float]:
    """The numbers that stand for a run, under the names in `SHORT` and four more."""
    told = {"primary_metric": run["primary_metric"]["value"], "seconds": run["seconds"]}
    told |= {name: run[name] for name in ("samples", "failed_samples")}
    told |= {name: logged.get(source) for name, source in SHORT.items()}
    return {name: value for name, value in told.items() if value is not None}


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
