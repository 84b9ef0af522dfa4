"""The table of all runs on the page, as HTML with the values by which it is sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from ivcp.core.printable import printable
from ivcp.report.columns import UNKNOWN, Column, Value, Where
from ivcp.report.comparison import Entry
from ivcp.report.marks import BELOW, BEST, BETTER, WORSE, find_marks
from ivcp.report.meanings import COLUMN_MEANINGS
from ivcp.report.tables import Line, columns_of, make_table

METHOD, MARKS, AFTER = "method", "marks", "difference"
"""The column of the rows' names, that of the marks, and the column before the marks."""
FACTS = ("dataset", "model", "primary_metric", "variant", "layer", "samples")
"""Columns that are said once above the table where all runs agree."""
LESS_ASKED = {
    "layer_average_ratio", "kept_in_box", "coverage", "kv_cache_bytes", "pruning_overhead_ms",
    "decode_ms_per_token", "mcnemar_p", "fixed", "regressed", "samples", "primary_metric",
}  # fmt: skip
"""Columns that a reader opens."""
TIMES = {"prefill_ms", "pruning_overhead_ms", "decode_ms_per_token"}
CLASSES = {BEST: "best", BELOW: "below", BETTER: "better", WORSE: "worse"}


@dataclass(frozen=True)
class PageColumn:
    """A column of the page's table.

    Attributes:
        name: Of the column in CSV files.
        heading: For readers, in one line.
        meaning: What it means, in a sentence.
        words: Whether cells hold words, which stand to the left.
        hidden: Whether the column is closed at first.
    """

    name: str
    heading: str
    meaning: str
    words: bool
    hidden: bool


@dataclass(frozen=True)
class RunsTable:
    """The table of all runs.

    Attributes:
        columns: Its columns; the first names the row.
        rows: Its rows as HTML; the row of run N has `data-run="N"`.
        facts: What all runs have in common: heading and cell.
    """

    columns: tuple[PageColumn, ...]
    rows: Markup
    facts: tuple[tuple[str, str], ...]


def make_runs_table(entries: Sequence[Entry], timed: bool) -> RunsTable:
    """The table of all runs, in their order.

    Args:
        entries: The runs.
        timed: Whether their times compare; where they do not, these columns are closed.
    """
    marks = find_marks(entries)
    columns = sorted(columns_of(Where.LIST), key=lambda column: column.name != METHOD)
    position = [column.name for column in columns].index(AFTER) + 1
    text = Column(MARKS, lambda entry: ", ".join(marks.get(entry, ())), "marks", words=True)
    table = make_table(entries, [*columns[:position], text, *columns[position:]])
    hidden, facts = LESS_ASKED | (set() if timed else TIMES), []
    for number, column in enumerate(table.columns):
        cells = {line.cells[number] for line in table.lines}
        if column.name in FACTS and len(cells) == 1 and len(entries) > 1:
            facts.append((_heading(column), cells.pop()))
            hidden |= {column.name}
    page_columns = tuple(
        PageColumn(
            column.name,
            _heading(column),
            COLUMN_MEANINGS.get(column.name, ""),
            column.words,
            column.name in hidden,
        )
        for column in table.columns
    )
    rows = Markup("\n").join(
        _row(number, line, page_columns) for number, line in enumerate(table.lines)
    )
    return RunsTable(page_columns, rows, tuple(facts))


def _heading(column: Column) -> str:
    return column.heading.replace("\n", " ")


def _row(number: int, line: Line, columns: Sequence[PageColumn]) -> Markup:
    name, *cells = line.cells
    method = escape(printable(name))
    pieces = [
        f'<tr data-run="{number}"{" class=unpruned" if line.unpruned else ""}>'
        f'<th scope="row" class="words">{method}</th>'
    ]
    for column, cell, value in zip(columns[1:], cells, line.values[1:], strict=True):
        words = " words" if column.words else ""
        pieces.append(
            f'<td class="c-{column.name}{words}"{_order(value)}>{_cell(column, cell)}</td>'
        )
    return Markup("".join([*pieces, "</tr>"]))


def _order(value: Value) -> str:
    """What a cell of numbers is sorted by; unknown numbers come first or last."""
    return "" if isinstance(value, str) else f' data-order="{"" if value is None else value}"'


def _cell(column: PageColumn, cell: str) -> str:
    if column.name != MARKS:
        return escape(printable(cell))
    marks = [] if cell == UNKNOWN else cell.split(", ")
    spans = " ".join(f'<span class="mark {CLASSES[mark]}">{mark}</span>' for mark in marks)
    return spans and f'<span class="marks">{spans}</span>'
