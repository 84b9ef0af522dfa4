"""One row a run: CSV with every number, Markdown and screen with the readable ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from ivcp.report.runs import Run, baseline_of

Cell = str | float | int | None


@dataclass(frozen=True)
class Row:
    """A run and how its headline stands to the unpruned one.

    Attributes:
        run: The run.
        relative: Headline over that of the unpruned run, 1 for equal; None without such a run.
    """

    run: Run
    relative: float | None


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Heading in the CSV file, with its unit.
        heading: Heading for readers; "" keeps the column out of tables for readers.
        value: The raw value, for the CSV file.
        show: The value as readers see it.
        shared: Whether it is equal in all rows of a block on screen, and stands in its title.
    """

    name: str
    heading: str
    value: Callable[[Row], Cell]
    show: Callable[[Cell], str] = lambda cell: "-" if cell in (None, "") else str(cell)
    shared: bool = False


def _percent(cell: Cell) -> str:
    return f"{100 * cell:.1f}" if isinstance(cell, int | float) else "-"


def _milliseconds(cell: Cell) -> str:
    if not isinstance(cell, int | float):
        return "-"
    return f"{cell:.2f}" if cell < 10 else f"{cell:.1f}" if cell < 1000 else f"{cell:.0f}"


def _megabytes(cell: Cell) -> str:
    return f"{cell / 1e6:.3g}" if isinstance(cell, int | float) else "-"


def _ratio(cell: Cell) -> str:
    return f"{cell:g}" if isinstance(cell, int | float) else "-"


COLUMNS = (
    Column("model", "model", lambda row: row.run.model, shared=True),
    Column("dataset", "dataset", lambda row: row.run.dataset, shared=True),
    Column("pruner", "pruner", lambda row: row.run.pruner),
    Column("ratio", "ratio", lambda row: row.run.ratio, _ratio),
    Column("layer", "layer", lambda row: row.run.layer),
    Column("headline", "metric", lambda row: row.run.headline, shared=True),
    Column("value", "score %", lambda row: row.run.value, _percent),
    Column("relative", "of unpruned %", lambda row: row.relative, _percent),
    Column("unparsed_rate", "", lambda row: row.run.unparsed_rate),
    Column("keep_ratio", "kept %", lambda row: row.run.keep_ratio, _percent),
    Column("layer_average_ratio", "layer avg %", lambda row: row.run.layer_average_ratio, _percent),
    Column("kv_cache_ratio", "KV %", lambda row: row.run.kv_cache_ratio, _percent),
    Column("kv_cache_bytes", "KV MB", lambda row: row.run.kv_cache_bytes, _megabytes),
    Column("prefill_flops_ratio", "FLOPs %", lambda row: row.run.flops_ratio, _percent),
    Column("prefill_ms", "prefill ms", lambda row: row.run.prefill_ms.median, _milliseconds),
    Column("prefill_ms_q1", "", lambda row: row.run.prefill_ms.q1),
    Column("prefill_ms_q3", "", lambda row: row.run.prefill_ms.q3),
    Column("selector_ms", "selector ms", lambda row: row.run.selector_ms.median, _milliseconds),
    Column("selector_ms_q1", "", lambda row: row.run.selector_ms.q1),
    Column("selector_ms_q3", "", lambda row: row.run.selector_ms.q3),
    Column(
        "decode_ms_per_token",
        "decode ms/token",
        lambda row: row.run.decode_ms.median,
        _milliseconds,
    ),
    Column("decode_ms_per_token_q1", "", lambda row: row.run.decode_ms.q1),
    Column("decode_ms_per_token_q3", "", lambda row: row.run.decode_ms.q3),
    Column("samples", "samples", lambda row: row.run.samples),
    Column("failed_samples", "", lambda row: row.run.failed_samples),
    Column("folder", "", lambda row: str(row.run.folder)),
)
TEXT = frozenset({"model", "dataset", "pruner", "headline"})


def make_rows(runs: Sequence[Run]) -> list[Row]:
    """Rows by dataset and model, then from large to small ratio, then from good to bad."""
    rows = []
    for run in runs:
        base = baseline_of(run, runs)
        value = base.value if base else None
        rows.append(Row(run, run.value / value if value and run.value is not None else None))
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[str, str, bool, float, float, str, str]:
    run = row.run
    ratio, value = run.ratio or 0.0, -1.0 if run.value is None else run.value
    return run.dataset, run.model, not run.unpruned, -ratio, -value, run.pruner, run.layer


def to_csv(rows: Sequence[Row]) -> str:
    """All columns, raw numbers; an empty cell is a number that the run does not hold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in COLUMNS])
    for row in rows:
        writer.writerow([column.value(row) for column in COLUMNS])
    return text.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """A table in GitHub's Markdown; times are medians, FLOPs and prefill the language model's."""
    columns = [column for column in COLUMNS if column.heading]
    lines = [
        [column.heading for column in columns],
        ["---" if column.name in TEXT else "---:" for column in columns],
        *([column.show(column.value(row)) for column in columns] for row in rows),
    ]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def to_screen(rows: Sequence[Row]) -> Group:
    """One block for each dataset, model and metric."""
    blocks: dict[str, list[Row]] = {}
    for row in rows:
        run = row.run
        blocks.setdefault(f"{run.dataset} · {run.model} · {run.headline}", []).append(row)
    return Group(*(_block(title, block) for title, block in blocks.items()))


def _block(title: str, rows: Sequence[Row]) -> Table:
    columns = [column for column in COLUMNS if column.heading and not column.shared]
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for column in columns:
        text = column.name in TEXT
        table.add_column(column.heading, justify="left" if text else "right", no_wrap=text)
    for number, row in enumerate(rows):
        if number and row.run.ratio != rows[number - 1].run.ratio:
            table.add_section()
        cells = [escape(column.show(column.value(row))) for column in columns]
        table.add_row(*cells, style="bold" if row.run.unpruned else None)
    return table
