"""What the page's script knows of each run: names, score, costs, settings, and its command."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from ivcp.report.columns import UNKNOWN, change, metric_name, score
from ivcp.report.comparison import Entry
from ivcp.report.marks import Block, block_of, budget_name, variant_name
from ivcp.report.rerun import command_of
from ivcp.report.variants import split_settings
from ivcp.results.load import FinishedRun, were_paired

CONTROLS = ("random", "uniform")
"""Pruners that look at nothing; every plot shows them."""


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 3)


def _layer(entry: Entry) -> float | None:
    return float(entry.layers) if entry.layers.isdecimal() else None


def _milliseconds(entry: Entry) -> float | None:
    prefill = entry.efficiency.language_prefill_ms.median
    overhead = entry.efficiency.pruning_overhead_ms.median
    return None if prefill is None else round(prefill + (overhead or 0.0), 3)


TIME = "time"
AXES: dict[str, tuple[str, Callable[[Entry], float | None]]] = {
    "tokens": (
        "visual tokens kept after the last layer, %",
        lambda entry: _percent(entry.tokens.keep_ratio),
    ),
    "average": (
        "visual tokens of a layer on average, %",
        lambda entry: _percent(entry.tokens.layer_average_ratio),
    ),
    "kv": ("KV cache, % of unpruned", lambda entry: _percent(entry.efficiency.kv_cache_ratio)),
    "flops": (
        "prefill FLOPs of the language model, % of unpruned",
        lambda entry: _percent(entry.efficiency.prefill_flops_ratio),
    ),
    TIME: ("prefill with pruning overhead, ms (median)", _milliseconds),
    "ratio": (
        "keep ratio that was asked for, %",
        lambda entry: _percent(entry.ratio if entry.budget is None else entry.tokens.keep_ratio),
    ),
    "layer": ("layer before which tokens are pruned", _layer),
}
"""Horizontal axes of the plot: label, and where a run is on it."""


def run_data(entries: Sequence[Entry], timed: Container[Block]) -> list[dict[str, Any]]:
    """Each run, by its index.

    Args:
        entries: The runs.
        timed: The blocks in which times compare.
    """
    numbers = {entry.run: number for number, entry in enumerate(entries)}
    return [_run(entry, numbers, block_of(entry) in timed) for entry in entries]


def blocks_with_times(entries: Sequence[Entry]) -> set[Block]:
    """The blocks in which the times of all runs compare: those of one sweep."""
    blocks: dict[Block, list[Entry]] = {}
    for entry in entries:
        blocks.setdefault(block_of(entry), []).append(entry)
    return {
        block
        for block, alike in blocks.items()
        if len({_parent(entry.run.folder) for entry in alike}) == 1
        and all(were_paired(alike[0].run, entry.run) for entry in alike[1:])
    }


def _parent(folder: Path) -> Path:
    return folder.resolve().parent


def _run(entry: Entry, numbers: Mapping[FinishedRun, int], timed: bool) -> dict[str, Any]:
    info, unit, value = entry.info, entry.metric.unit, entry.metric.value
    scale = 100 if unit else 1
    difference = entry.paired.difference
    base = None if entry.base is None else entry.base.metric.value
    x = {name: measure(entry) for name, (_, measure) in AXES.items() if name != TIME or timed}
    run: dict[str, Any] = {
        "name": run_name(entry),
        "block": " · ".join((entry.dataset, info.model, metric_name(entry))),
        "dataset": entry.dataset,
        "model": info.model,
        "method": variant_name(entry),
        "pruner": info.pruner,
        "budget": budget_name(entry),
        "layer": entry.layers,
        "unpruned": info.unpruned,
        "control": info.pruner in CONTROLS,
        "base": None if entry.base is None else numbers.get(entry.base.run),
        "value": None if value is None else round(scale * value, 3),
        "score": UNKNOWN if value is None else score(value, unit),
        "x": {name: number for name, number in x.items() if number is not None},
        "folder": str(entry.run.folder),
        "command": command_of(info),
    }
    if entry.difference is not None and base is not None:
        ends = [end for end in (difference.low, difference.high) if end is not None]
        interval = f" [{', '.join(change(end, unit) for end in ends)}]" if ends else ""
        run["difference"] = change(entry.difference, unit) + interval
        run["interval"] = [round(scale * (base + end), 3) for end in ends]
    return run


def run_settings(entries: Sequence[Entry]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The settings that all runs have in common, and the others of each run, by name."""
    common, others = split_settings([entry.info for entry in entries])
    return dict(common), [dict(values) for values in others]


def run_name(entry: Entry) -> str:
    """A run in a few words."""
    layer = f", layer {entry.layers}" if entry.layers else ""
    ratio = "" if entry.info.unpruned or entry.ratio is None else f" at {entry.ratio:g}"
    method = f"{entry.method} {entry.variant.text}".strip()
    return f"{entry.dataset} · {entry.info.model} · {method}{ratio}{layer}"
