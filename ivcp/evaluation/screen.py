"""The table that a run ends with."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ivcp.core.printable import printable
from ivcp.results.amounts import show
from ivcp.results.comparability import differences
from ivcp.results.load import FinishedRun, were_paired
from ivcp.results.schema import Quartiles, Results

log = logging.getLogger(__name__)

COUNTS = (
    ("visual tokens", "tokens", "visual", ""),
    ("kept tokens", "tokens", "kept", ""),
    ("keep ratio", "tokens", "keep_ratio", "%"),
    ("layer-average ratio", "tokens", "layer_average_ratio", "%"),
    ("KV cache", "efficiency", "kv_cache_bytes", "B"),
    ("KV cache, of unpruned", "efficiency", "kv_cache_ratio", "%"),
    ("prefill FLOPs", "efficiency", "prefill_flops_formula", "F"),
    ("prefill FLOPs, of unpruned", "efficiency", "prefill_flops_ratio", "%"),
)
"""Label, block and field of `Results`, and unit ("" for points and counts)."""

TIMED = (
    ("vision", "efficiency", "vision_ms", "ms"),
    ("language prefill", "efficiency", "language_prefill_ms", "ms"),
    ("pruning overhead", "efficiency", "pruning_overhead_ms", "ms"),
    ("time to first token", "efficiency", "time_to_first_token_ms", "ms"),
    ("decoding, per token", "efficiency", "decode_ms_per_token", "ms"),
    ("tokens per second", "efficiency", "tokens_per_second", ""),
    ("samples per second", "efficiency", "samples_per_second", ""),
    ("peak memory", "efficiency", "peak_memory_bytes", "B"),
)
"""What is measured, and can be compared only between runs that were made under one roof."""

LONGEST = 1000  # characters of a note

Value = float | None


def result_table(run: FinishedRun, baseline: FinishedRun | None) -> Table:
    """A run beside its unpruned baseline; times of the baseline only where the runs were paired."""
    info = run.info
    title = f"{info.model} · {info.pruner} · {info.dataset}"
    table = Table(title=Text(printable(title)))
    table.add_column("", no_wrap=True)
    table.add_column("this run", justify="right")
    if baseline is not None:
        table.add_column("unpruned", justify="right")
        table.add_column("change", justify="right")
    names = main_metrics(run.results)
    for name in names:
        unit = "" if name in info.points else "%"
        other = None if baseline is None else baseline.results.metrics.get(name)
        cells = _cells(run.results.metrics[name], other, unit, baseline is not None)
        table.add_row(Text(printable(name)), *cells, end_section=name == names[-1])
    paired = baseline is not None and were_paired(run, baseline)
    if info.budget is not None:
        cells = _cells(info.budget.obtained, None, info.budget.unit, baseline is not None)
        table.add_row(f"budget ({info.budget.asked})", *cells)
    for label, block, field, unit in (*COUNTS, *TIMED):
        comparable = paired or (label, block, field, unit) in COUNTS
        other = _look(baseline.results, block, field) if baseline and comparable else None
        value = _look(run.results, block, field)
        table.add_row(label, *_cells(value, other, unit, baseline is not None))
    return table


def main_metrics(results: Results) -> list[str]:
    """Names of the values to show: no break-downs; of a task group, each task's primary one."""
    tasks = [f"{name}/{task.name}" for name, task in results.run.tasks.items()]
    return [*tasks, *(name for name in results.metrics if "/" not in name)]


def notes(run: FinishedRun, baseline: FinishedRun | None) -> list[str]:
    """What a reader of the table must know, one sentence each."""
    info = run.info
    lines = [f"{info.samples} samples, {info.failed_samples} failed; times are medians."]
    lines += info.notes
    if info.judge.reason:
        lines.append(info.judge.reason)
    if baseline is not None:
        lines.append(f"Unpruned: {baseline.folder}.")
        if names := differences(info, baseline.info):
            lines.append(f"The unpruned run differs in {', '.join(names)}: compare with care.")
        if not were_paired(run, baseline):
            lines.append(
                "Times are not compared: the unpruned run is not of the same sweep, machine and "
                "trainer."
            )
    elif not info.unpruned:
        lines.append("No unpruned baseline: run pruner=none with the same settings first.")
    return lines


def show_result(run: FinishedRun, baseline: FinishedRun | None) -> None:
    """Print table, notes and the folder; 100 columns where there is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print(result_table(run, baseline))
    for line in (*notes(run, baseline), f"Results: {run.folder}"):
        shown = printable(line, LONGEST)
        console.print(Text(shown), soft_wrap=line.startswith("Results"))
        log.info(shown)


def _look(results: Results, block: str, field: str) -> Value:
    value = getattr(getattr(results, block), field)
    return value.median if isinstance(value, Quartiles) else value


def _cells(value: Value, other: Value, unit: str, compared: bool) -> list[str]:
    if not compared:
        return [show(value, unit)]
    return [show(value, unit), show(other, unit), _change(value, other, unit)]


def _change(value: Value, other: Value, unit: str) -> str:
    """Points for percentages, a factor for everything else."""
    if value is None or other is None:
        return ""
    if unit == "%":
        return f"{100 * (value - other):+.1f} pts"
    return f"x {value / other:.2f}" if other else ""
