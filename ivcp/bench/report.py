"""The files of a benchmark, and its table on screen."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ivcp.bench.listing import csv_text, markdown, notes
from ivcp.bench.plot import plot_png
from ivcp.bench.result import BenchResult, Compared, Group, Measured
from ivcp.core.errors import UserError
from ivcp.core.printable import printable
from ivcp.results.amounts import show
from ivcp.results.files import write_atomically

FILE = "bench.json"
WIDTH = 120  # characters, where there is no terminal


def write_bench(result: BenchResult, folder: Path) -> Path:
    """Write `bench.json`, `bench.csv`, `bench.md` and `plot.png`; gives the path of the first.

    Raises:
        UserError: The disk is full.
    """
    write_atomically(folder / "bench.csv", csv_text(result))
    write_atomically(folder / "bench.md", markdown(result))
    if picture := plot_png(result):
        write_atomically(folder / "plot.png", picture)
    write_atomically(folder / FILE, result.model_dump_json(indent=1) + "\n")  # last: it is read
    return folder / FILE


def read_bench(path: Path) -> BenchResult:
    """What `write_bench` wrote.

    Raises:
        UserError: It is damaged, or of another version.
    """
    try:
        return BenchResult.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is no benchmark of this version of ivcp: choose another folder with "
            "hydra.run.dir=."
        ) from error


def group_table(group: Group) -> Table:
    """One row a method; ratios are over unpruned, with their quartiles and their limits."""
    title = Text(printable(group.title))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    on_gpu = any(row.peak_memory_bytes.value.median for row in group.methods)
    table.add_column("method\n", no_wrap=True)
    columns = [
        "first\ntoken ms",
        "prefill\nms",
        "ratio\n[quartiles]",
        "FLOPs\nratio",
        "overhead\nms",
    ]
    columns += ["decoding\nms/token", "ratio\n[quartiles]", "bytes\nratio", "KV\ncache"]
    columns += ["answers\na second", *(["peak\nmemory"] if on_gpu else [])]
    for column in columns:
        table.add_column(Text(column), justify="right", no_wrap=True)
    for row in group.methods:
        if row.status != "ok":
            table.add_row(Text(row.info.label), Text(printable(row.status, 40)))
            continue
        cells = _cells(row)
        if on_gpu:
            cells.append(show(row.peak_memory_bytes.value.median, "B"))
        table.add_row(Text(printable(row.info.label)), *map(Text, cells))
    return table


def _cells(row: Measured) -> list[str]:
    def ms(quantity: Compared, digits: int = 1) -> str:
        return "" if (value := quantity.value.median) is None else f"{value:.{digits}f}"

    def ratio(quantity: Compared) -> str:
        spread = quantity.ratio
        if spread.median is None or row.counts is None:
            return ""
        return f"{spread.median:.2f} [{spread.q1:.2f} {spread.q3:.2f}]"

    def limit(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    cache = None if row.counts is None else row.counts.kv_cache_bytes.ratio
    return [
        ms(row.time_to_first_token_ms), ms(row.prefill_ms), ratio(row.prefill_ms),
        limit(row.flops_ratio), ms(row.pruning_overhead_ms, 2) if row.counts else "",
        ms(row.decode_ms_per_token, 2), ratio(row.decode_ms_per_token),
        limit(row.decode_bytes_ratio), "" if cache is None else f"{100 * cache:.1f}%",
        ms(row.samples_per_second, 2),
    ]  # fmt: skip


def show_bench(result: BenchResult, path: Path) -> None:
    """Print tables, verdicts, notes and the path of the file."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for group in result.groups:
        console.print(group_table(group))
    for line in (*result.verdicts, *notes(result)):
        console.print(Text(printable(line, 1000)))
    console.print(Text(printable(f"Results: {path}", 1000)), soft_wrap=True)
