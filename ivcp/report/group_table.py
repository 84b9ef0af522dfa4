"""Runs of a group: one row a method, one column a set, and the average."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from ivcp.report.fitting import fitting
from ivcp.report.formatting import plain, score
from ivcp.report.rows import Row
from ivcp.report.runs import Run
from ivcp.report.table import markdown_table

MARK = "*"
MARKED = (
    f"{MARK}: the 95 % interval of the difference leaves out 0 and p is below 0.05, as happens "
    "up to once in twenty times where nothing differs."
)
WORDS = ("pruner", "variant")
METHOD = (*WORDS, "ratio", "layer")
AVERAGE = "average"
GAP = 3  # characters between columns on screen


@dataclass(frozen=True)
class GroupTable:
    """The runs of one group and model.

    Attributes:
        group: Name of the group.
        model: Name of the model.
        columns: Name and metric of each set, in the group's order, and of the average.
        lines: Each run, and for each column its row; None for a set that the run does not have.
    """

    group: str
    model: str
    columns: tuple[tuple[str, str], ...]
    lines: tuple[tuple[Row, tuple[Row | None, ...]], ...]


def group_tables(rows: Sequence[Row]) -> list[GroupTable]:
    """One table for each group and model; none without runs of a group."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.tasks:
            groups.setdefault((row.run.dataset, row.run.model), []).append(row)
    return [_table(name, model, own) for (name, model), own in groups.items()]


def caption(tables: Sequence[GroupTable]) -> str:
    """What the cells hold; the mark is explained if there are intervals."""
    rows = (cell for table in tables for _, cells in table.lines for cell in cells)
    known = any(row is not None and row.paired.difference.low is not None for row in rows)
    return "Score (percent of the unpruned score)" + (f"; {MARKED}" if known else ".")


def _table(group: str, model: str, rows: Sequence[Row]) -> GroupTable:
    metrics = {one.run.dataset: _metric(one) for row in rows for one in row.tasks}
    lines = []
    for row in rows:
        own = {one.run.dataset: one for one in row.tasks}
        lines.append((row, (*map(own.get, metrics), row)))
    columns = (*metrics.items(), (AVERAGE, _metric(rows[0])))
    return GroupTable(group, model, columns, tuple(lines))


def _metric(row: Row) -> str:
    return row.run.primary_metric if row.run.unit else f"{row.run.primary_metric} (points)"


def method_names(table: GroupTable) -> tuple[str, ...]:
    """What tells the methods of a table apart; the variant where there is one."""
    varied = any(row.run.apart for row, _ in table.lines)
    return tuple(name for name in METHOD if varied or name != "variant")


def _method(row: Row, names: Sequence[str]) -> list[str]:
    return [plain(_told(row.run, name)) for name in names]


def _told(run: Run, name: str) -> Any:
    return run.apart if name == "variant" else getattr(run, name)


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    shown = score(row.run.value, row.run.unit)
    if row.difference is not None:
        shown += f" ({score(row.relative)})"
    return shown + MARK if row.paired.significant else shown


def to_csv(tables: Sequence[GroupTable]) -> str:
    """Raw numbers: of each set the score, its relation to the unpruned one, the mark."""
    names = dict.fromkeys(name for table in tables for name, _ in table.columns)
    kinds = ("", "_relative", "_significant")
    text = io.StringIO()
    head = ["model", "group", *METHOD, *(name + kind for name in names for kind in kinds)]
    writer = csv.DictWriter(text, head, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for row, cells in table.lines:
            run = row.run
            told = [table.model, table.group, *(_told(run, name) for name in METHOD)]
            line: dict[str, object] = dict(zip(head, told, strict=False))
            for (name, _), cell in zip(table.columns, cells, strict=True):
                line |= _raw(name, cell) if cell else {}
            writer.writerow(line)
    return text.getvalue()


def _raw(name: str, row: Row) -> Mapping[str, object]:
    known = row.paired.difference.low is not None
    return {
        name: row.run.value,
        f"{name}_relative": row.relative,
        f"{name}_significant": row.paired.significant if known else None,
    }


def to_markdown(tables: Sequence[GroupTable]) -> str:
    """Tables in GitHub's Markdown under headings, then the caption."""
    parts = []
    for table in tables:
        head = [*method_names(table), *("<br>".join(column) for column in table.columns)]
        rule = ["---" if name in WORDS else "---:" for name in head]
        shown = markdown_table([head, rule, *shown_cells(table)])
        parts.append(f"## {table.group} · {table.model}\n\n{shown}\n")
    return ("".join(parts) + caption(tables)).replace(MARK, f"\\{MARK}") + "\n"


def to_screen(tables: Sequence[GroupTable], width: int) -> Group:
    """The tables, each in parts no wider than the screen.

    Args:
        tables: The tables.
        width: Characters of a line.
    """
    return Group(*(part for table in tables for part in _parts(table, width)))


def shown_cells(table: GroupTable) -> list[list[str]]:
    """Method and scores of each line."""
    names = method_names(table)
    return [[*_method(row, names), *map(_cell, cells)] for row, cells in table.lines]


def _parts(table: GroupTable, width: int) -> list[Table]:
    method = method_names(table)
    lines = [[*method, *("\n".join(column) for column in table.columns)], *shown_cells(table)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    parts = fitting(widths, len(method), width)
    return [_drawn(table, [[line[place] for place in part] for line in lines]) for part in parts]


def _width(cell: str) -> int:
    return max(map(len, cell.split("\n"))) + GAP


def _drawn(table: GroupTable, lines: Sequence[Sequence[str]]) -> Table:
    title = escape(f"{table.group} · {table.model} · by set")
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for head in lines[0]:
        justify: Literal["left", "right"] = "left" if head in WORDS else "right"
        drawn.add_column(escape(head), justify=justify, no_wrap=True)
    for (row, _), line in zip(table.lines, lines[1:], strict=True):
        drawn.add_row(*map(escape, line), style="bold" if row.run.unpruned else None)
    return drawn
