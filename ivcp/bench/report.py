"""A finished benchmark: its file, and its table on screen."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ivcp.bench.result import BenchResult, Compared, Counted
from ivcp.core.printable import printable
from ivcp.results.amounts import show
from ivcp.results.files import write_atomically
from ivcp.results.schema import Quartiles

FILE = "bench.json"

COUNTS = (
    ("visual tokens", "visual_tokens", ""),
    ("visual tokens, layer average", "layer_average_tokens", ""),
    ("prompt tokens", "prompt_tokens", ""),
    ("KV cache", "kv_cache_bytes", "B"),
    ("prefill FLOPs, counted", "prefill_flops_counted", "F"),
    ("prefill FLOPs, formula", "prefill_flops_formula", "F"),
)
"""Label, field of `Counts`, unit."""

MEASURED = (
    ("vision tower", "vision_ms", "ms"),
    ("language prefill", "language_prefill_ms", "ms"),
    ("pruning overhead", "pruning_overhead_ms", "ms"),
    ("time to first token", "time_to_first_token_ms", "ms"),
    ("decoding, per token", "decode_ms_per_token", "ms"),
    ("complete answer", "total_ms", "ms"),
    ("peak memory", "peak_memory_bytes", "B"),
)
"""Label, field of `BenchResult`, unit."""


def write_bench(result: BenchResult, folder: Path) -> Path:
    """Write `bench.json`; gives its path.

    Raises:
        UserError: The disk is full.
    """
    path = folder / FILE
    write_atomically(path, result.model_dump_json(indent=2))
    return path


def bench_table(result: BenchResult) -> Table:
    """One row a quantity: unpruned, pruned, and the ratio with its quartiles."""
    run = result.run
    ratio = "" if run.ratio is None else f"{run.ratio:g}"
    method = " ".join(filter(None, (run.pruner, run.variant, ratio)))
    width, height = run.image
    title = f"{run.model} · {method} · {width} x {height} pixels, batch {run.batch_size}"
    table = Table(title=Text(printable(title)))
    table.add_column("", no_wrap=True)
    for column in ("unpruned", "pruned", "ratio [quartiles]"):
        table.add_column(Text(column), justify="right")
    for label, name, unit in COUNTS:
        counted: Counted = getattr(result.counts, name)
        ratio = "-" if counted.ratio is None else f"{counted.ratio:.3f}"
        values = (show(value, unit) for value in (counted.unpruned, counted.pruned))
        cells = (value.removesuffix(".0") for value in values)
        table.add_row(label, *cells, ratio, end_section=name == COUNTS[-1][1])
    for label, name, unit in MEASURED:
        compared: Compared = getattr(result, name)
        medians = (compared.unpruned.median, compared.pruned.median)
        table.add_row(
            label, *(show(value, unit) for value in medians), Text(_spread(compared.ratio))
        )
    return table


def bench_notes(result: BenchResult) -> list[str]:
    """What a reader of the table must know, one sentence each."""
    run = result.run
    device = f"cpu, threads: {run.threads}" if run.device == "cpu" else run.device
    return [
        f"{device} ({run.machine}), {run.dtype}, {run.attention}; {run.new_tokens} new tokens.",
        f"Medians of {run.repeats} pairs; ratios are pruned over unpruned, pair by pair. That of "
        "the pruning overhead is to the unpruned language prefill.",
        *run.notes,
    ]


def show_bench(result: BenchResult, path: Path) -> None:
    """Print table, notes and the path of the file; 100 columns where there is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print(bench_table(result))
    for line in bench_notes(result):
        console.print(Text(printable(line)))
    console.print(Text(printable(f"Results: {path}", 1000)), soft_wrap=True)


def _spread(ratio: Quartiles) -> str:
    """A ratio's median and quartiles.

    >>> _spread(Quartiles(median=0.5, q1=0.25, q3=0.75)), _spread(Quartiles())
    ('0.500 [0.250, 0.750]', '-')
    """
    if ratio.median is None:
        return "-"
    return f"{ratio.median:.3f} [{ratio.q1:.3f}, {ratio.q3:.3f}]"
