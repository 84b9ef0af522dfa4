"""The table that a run ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = tuple[str, tuple[str, ...], str]
"""Label, path into the report, unit ("" for points and counts)."""

ROWS: tuple[Row, ...] = (
    ("visual tokens", ("tokens", "visual"), ""),
    ("kept tokens", ("tokens", "kept"), ""),
    ("keep ratio", ("tokens", "keep_ratio"), "%"),
    ("layer-average ratio", ("tokens", "layer_average_ratio"), "%"),
    ("KV cache", ("efficiency", "kv_cache_bytes"), "B"),
    ("KV cache, of unpruned", ("efficiency", "kv_cache_ratio"), "%"),
    ("prefill FLOPs", ("efficiency", "prefill_flops_formula"), "F"),
    ("prefill FLOPs, of unpruned", ("efficiency", "prefill_flops_ratio"), "%"),
    ("vision", ("efficiency", "vision_ms", "median"), "ms"),
    ("language prefill", ("efficiency", "language_prefill_ms", "median"), "ms"),
    ("pruning overhead", ("efficiency", "pruning_overhead_ms", "median"), "ms"),
    ("time to first token", ("efficiency", "time_to_first_token_ms", "median"), "ms"),
    ("decoding, per token", ("efficiency", "decode_ms_per_token", "median"), "ms"),
    ("tokens per second", ("efficiency", "tokens_per_second"), ""),
    ("samples per second", ("efficiency", "samples_per_second"), ""),
    ("peak memory", ("efficiency", "peak_memory_bytes"), "B"),
)


def result_table(report: dict[str, Any], baseline: dict[str, Any] | None) -> Table:
    """A run beside its unpruned baseline.

    Args:
        report: Contents of this run's `metrics.json`.
        baseline: Contents of the baseline's, if there is one.
    """
    run = report["run"]
    table = Table(title=f"{run['model']} · {run['pruner']} · {run['dataset']}")
    table.add_column("", no_wrap=True)
    table.add_column("this run", justify="right")
    if baseline is not None:
        table.add_column("unpruned", justify="right")
        table.add_column("change", justify="right")
    metrics = tuple(
        (name, ("metrics", name), "" if name in run["points"] else "%") for name in headings(report)
    )
    for label, path, unit in (*metrics, *ROWS):
        value = _look(report, path)
        cells = [label, show(value, unit)]
        if baseline is not None:
            other = _look(baseline, path)
            cells += [show(other, unit), _change(value, other, unit)]
        table.add_row(*cells, end_section=label == (metrics[-1][0] if metrics else ""))
    return table


def headings(report: dict[str, Any]) -> list[str]:
    """Names of the values to show: no break-downs; of a group each primary one."""
    tasks = report["run"]["tasks"]
    whole = [name for name in report["metrics"] if "/" not in name]
    return [*(f"{name}/{task['primary_metric']}" for name, task in tasks.items()), *whole]


def notes(report: dict[str, Any], baseline: dict[str, Any] | None, differing: list[str]) -> str:
    """What a reader of the table must know, one line a note."""
    run = report["run"]
    lines = [f"{run['samples']} samples, {run['failed_samples']} failed; times are medians."]
    lines += run["notes"]
    if run["judge"]["reason"]:
        lines.append(run["judge"]["reason"])
    if baseline is None and run["pruner"] != "none":
        lines.append("No unpruned baseline: run pruner=none with the same settings first.")
    if differing:
        lines.append(f"The baseline has another {', '.join(differing)}: compare with care.")
    return "\n".join(lines)


def show_result(
    report: dict[str, Any], baseline: dict[str, Any] | None, differing: list[str], folder: Path
) -> None:
    """Print table, notes and the place of the files; 100 columns where there is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print(result_table(report, baseline))
    console.print(notes(report, baseline, differing), highlight=False, markup=False)
    console.print(f"Results: {folder}", highlight=False, soft_wrap=True)


def show(value: float | None, unit: str) -> str:
    """A value for reading.

    >>> show(0.5, "%"), show(2_500_000, "B"), show(3.2e9, "F"), show(12.345, "ms"), show(None, "")
    ('50.0 %', '2.50 MB', '3.200 G', '12.35 ms', '-')
    """
    if value is None:
        return "-"
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "B":
        return f"{value / 1e6:,.2f} MB"
    if unit == "F":
        return f"{value / 1e9:,.3f} G"
    return f"{value:,.2f} {unit}".strip() if unit else f"{value:,.1f}"


def _look(report: dict[str, Any], path: tuple[str, ...]) -> float | None:
    found: Any = report
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, int | float) else None


def _change(value: float | None, other: float | None, unit: str) -> str:
    """Points for percentages, a factor for everything else."""
    if value is None or other is None:
        return ""
    if unit == "%":
        return f"{100 * (value - other):+.1f} pts"
    return f"x {value / other:.2f}" if other else ""
