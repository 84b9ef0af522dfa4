"""Run folders as records: what a table or a plot needs to know of each `metrics.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ivcp.core.comparable import COMPARED, content
from ivcp.core.errors import UserError

FILE = "metrics.json"
UNPRUNED = "none"
"""Name of the pruner that keeps everything; its runs are the baselines."""
Unit: TypeAlias = Literal["%", ""]
"""Of a score: "%" for a fraction, "" for points."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a measurement."""

    median: float | None = None
    q1: float | None = None
    q3: float | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished evaluation, or one set of a group. A number that the file does not hold is None.

    Attributes:
        folder: Where it was read from.
        model: Name of the model.
        dataset: Name of the dataset.
        pruner: Name of the pruner.
        ratio: Keep ratio as configured; 1 for an unpruned run.
        layer: Decoder layer before which tokens leave, as configured; "" if there is none.
        variant: Other settings that set it apart from runs of the same pruner
            (`ivcp.report.variants`).
        repeat: Seeds that do.
        primary_metric: Name of the metric that stands for the run.
        value: Its value: a fraction in [0, 1], or points.
        unit: Of the value.
        metric: Dotted path of the metric's class; "" if the file names none, and of a group.
        tasks: The sets of a group, in its order, with results of their own but no measurements.
        group: Of a task, the name of its group; else "".
        unparsed_rate: Fraction of the answers that could not be read.
        keep_ratio: Visual tokens that survive the last stage, over all.
        layer_average_ratio: Visual tokens that each layer processed, over all, mean over layers.
        kv_cache_ratio: Bytes of the KV cache over those of the unpruned prompt.
        kv_cache_bytes: Bytes of the KV cache, mean per sample.
        flops_ratio: Prefill FLOPs of the language model over those without pruning.
        prefill_ms: Time of the language model's prefill, in milliseconds, as the next two.
        pruning_overhead_ms: Time that choosing tokens takes.
        decode_ms: Time per generated token.
        samples: Number of judged samples.
        failed_samples: Number of samples that could not be run.
        notes: What a reader of its results must know, one sentence each.
        date: When the run was made, in a format that sorts.
        setting: Everything but the pruner that a fair comparison holds fixed.
        record: The file's `run` as it is: configuration, versions, device; empty of a task.
    """

    folder: Path
    model: str
    dataset: str
    pruner: str
    ratio: float | None
    layer: str
    variant: str = ""
    repeat: str = ""
    primary_metric: str
    value: float | None
    unit: Unit = "%"
    metric: str = ""
    tasks: tuple[Run, ...] = ()
    group: str = ""
    unparsed_rate: float | None = None
    keep_ratio: float | None = None
    layer_average_ratio: float | None = None
    kv_cache_ratio: float | None = None
    kv_cache_bytes: float | None = None
    flops_ratio: float | None = None
    prefill_ms: Spread = Spread()
    pruning_overhead_ms: Spread = Spread()
    decode_ms: Spread = Spread()
    samples: int | None = None
    failed_samples: int | None = None
    notes: tuple[str, ...] = ()
    date: str = ""
    setting: str = ""
    record: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def unpruned(self) -> bool:
        """Whether the run is a baseline."""
        return self.pruner == UNPRUNED

    @property
    def apart(self) -> str:
        """Variant and repeat."""
        return f"{self.variant} {self.repeat}".strip()

    @property
    def config(self) -> dict[str, Any]:
        """The configuration; empty where the record does not hold it."""
        return _part(self.record, "config")


def read_run(path: Path) -> Run:
    """The run whose results are in a file.

    Args:
        path: A `metrics.json`.

    Raises:
        UserError: The file cannot be read, is torn, or is not the result of a run.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not complete JSON; is its run still going on?") from error
    record, metrics = _part(content, "run"), _part(content, "metrics")
    efficiency, tokens = _part(content, "efficiency"), _part(content, "tokens")
    names = {key: record.get(key) for key in ("model", "dataset", "pruner")}
    primary_metric = _part(record, "primary_metric").get("name")
    if (
        not metrics
        or not primary_metric
        or not all(isinstance(v, str) and v for v in names.values())
    ):
        raise UserError(
            f"{path} is not the result of a run: expected run.model, run.dataset, run.pruner, "
            "run.primary_metric and metrics."
        )
    unpruned = names["pruner"] == UNPRUNED
    identity: dict[str, Any] = {
        "folder": path.parent,
        "model": names["model"],
        "pruner": names["pruner"],
        "ratio": 1.0 if unpruned else _number(record.get("ratio")),
        "layer": "" if unpruned else _layer_text(record.get("layer")),
        "date": str(record.get("date") or ""),
        "setting": _setting(record),
    }
    return Run(
        **identity,
        dataset=str(names["dataset"]),
        primary_metric=str(primary_metric),
        value=_number(_part(record, "primary_metric").get("value")),
        unit=_unit(_part(record, "primary_metric")),
        metric=str(_part(record, "primary_metric").get("metric") or ""),
        tasks=_tasks(record, metrics, identity),
        unparsed_rate=_number(metrics.get("unparsed_rate")),
        keep_ratio=_number(tokens.get("keep_ratio")),
        layer_average_ratio=_number(tokens.get("layer_average_ratio")),
        kv_cache_ratio=_number(efficiency.get("kv_cache_ratio")),
        kv_cache_bytes=_number(efficiency.get("kv_cache_bytes")),
        flops_ratio=_number(efficiency.get("prefill_flops_ratio")),
        prefill_ms=_spread(efficiency.get("language_prefill_ms")),
        pruning_overhead_ms=_spread(efficiency.get("pruning_overhead_ms")),
        decode_ms=_spread(efficiency.get("decode_ms_per_token")),
        samples=_count(record.get("samples")),
        failed_samples=_count(record.get("failed_samples")),
        notes=_notes(record),
        record=record,
    )


def _tasks(
    record: dict[str, Any], metrics: dict[str, Any], identity: dict[str, Any]
) -> tuple[Run, ...]:
    """The sets of a group of which there are results."""
    return tuple(
        Run(
            **identity,
            dataset=name,
            group=str(record["dataset"]),
            primary_metric=str(told["primary_metric"]),
            value=_number(metrics[f"{name}/{told['primary_metric']}"]),
            unit=_unit(told),
            metric=str(told.get("metric") or ""),
            unparsed_rate=_number(metrics.get(f"{name}/unparsed_rate")),
        )
        for name, told in _part(record, "tasks").items()
        if isinstance(told, dict) and f"{name}/{told.get('primary_metric')}" in metrics
    )


def find_runs(places: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """All runs in folders and the folders below them.

    Args:
        places: Run folders, parents of run folders, or `metrics.json` files.

    Returns:
        The runs, and one sentence for each file or place that was skipped.
    """
    runs: list[Run] = []
    problems: list[str] = []
    seen: set[Path] = set()
    for place in places:
        files = [place] if place.is_file() else sorted(place.rglob(FILE))
        if not files:
            what = "holds no finished run" if place.is_dir() else "does not exist"
            problems.append(f"{place} {what}.")
        for path in files:
            if (key := path.resolve()) in seen:
                continue
            seen.add(key)
            try:
                runs.append(read_run(path))
            except UserError as error:
                problems.append(str(error))
    return runs, problems


def merge_repeats(runs: Sequence[Run]) -> tuple[list[Run], int]:
    """Runs in which those of the same configuration and result appear once, as the latest.

    A sweep over ratios repeats the unpruned run at each of them, and two studies may share an arm.

    Returns:
        The runs, and how many were left out.
    """
    latest: dict[object, Run] = {}
    for run in sorted(runs, key=lambda run: run.date):
        key: tuple[object, ...] = run.model, run.dataset, run.setting, run.value, run.pruner
        if not run.unpruned:  # one that does not tell its configuration is no repeat
            pruner = run.config.get("pruner")
            key += (run.ratio, json.dumps(pruner, sort_keys=True) if pruner else id(run))
        latest[key] = run
    kept = {id(run) for run in latest.values()}
    merged = [run for run in runs if id(run) in kept]
    return merged, len(runs) - len(merged)


def baseline_of(run: Run, runs: Iterable[Run]) -> Run | None:
    """The latest unpruned run with the same model, dataset and setting; None if there is none."""
    same = [
        other
        for other in runs
        if other.unpruned
        and (other.model, other.dataset, other.setting, other.primary_metric)
        == (run.model, run.dataset, run.setting, run.primary_metric)
    ]
    return max(same, key=lambda other: other.date, default=None)


def _part(content: Any, key: str) -> dict[str, Any]:
    part = content.get(key) if isinstance(content, Mapping) else None
    return part if isinstance(part, dict) else {}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _count(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _spread(value: Any) -> Spread:
    if not isinstance(value, dict):
        return Spread(_number(value))
    return Spread(*(_number(value.get(key)) for key in ("median", "q1", "q3")))


def _unit(told: dict[str, Any]) -> Unit:
    return "" if told.get("unit") == "" else "%"


def _notes(record: dict[str, Any]) -> tuple[str, ...]:
    told = record.get("notes")
    sentences = [*(told if isinstance(told, list) else ()), _part(record, "judge").get("reason")]
    return tuple(sentence for sentence in sentences if isinstance(sentence, str) and sentence)


def _layer_text(value: Any) -> str:
    if value is None:
        return ""
    return "+".join(str(item) for item in value) if isinstance(value, list) else str(value)


def _setting(record: dict[str, Any]) -> str:
    config = _part(record, "config")
    fixed = [content(config.get(key)) for key in COMPARED]
    fixed += [record.get(key) for key in ("samples", "dtype", "attention", "device")]
    return json.dumps(fixed, sort_keys=True, default=str)
