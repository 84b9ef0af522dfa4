"""One row a run: CSV with every number, Markdown and screen with the readable ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from ivcp.report.fitting import fitting
from ivcp.report.formatting import UNKNOWN, change, megabytes, milliseconds, p_value, plain, score
from ivcp.report.rows import Row, dataset_name, with_tasks
from ivcp.report.runs import Run

METHOD = ("pruner", "variant", "ratio", "layer")
"""Headings of the columns that say what a row is; every part of a wide table has them."""
GAP = 2  # characters between columns on screen

Field: TypeAlias = Callable[[Row], str | float | None]


@dataclass(frozen=True)
class Column:
    """One column for readers.

    Attributes:
        heading: With its unit.
        show: The cell.
        text: Whether the cells are words.
        shared: Whether cells are equal in a block on screen; its title holds them.
        screen: Whether there is room for it on screen.
        paper: Whether there is room for it on paper.
        optional: Whether it is left out where no row has something in it; its words may be broken.
    """

    heading: str
    show: Callable[[Row], str]
    text: bool = False
    shared: bool = False
    screen: bool = True
    paper: bool = True
    optional: bool = False


def metric_name(run: Run) -> str:
    """The primary metric with its unit."""
    return f"{run.primary_metric} ({run.unit or 'points'})"


def difference(row: Row) -> str:
    """The difference to the unpruned run with its interval."""
    unit, known = row.run.unit, row.paired.difference
    shown = change(row.difference, unit)
    if known.low is None:
        return shown
    return f"{shown} [{change(known.low, unit)}, {change(known.high, unit)}]"


FIELDS: Mapping[str, Field] = MappingProxyType(
    {
        "model": lambda row: row.run.model,
        "group": lambda row: row.run.group,
        "dataset": lambda row: row.run.dataset,
        "pruner": lambda row: row.run.pruner,
        "ratio": lambda row: row.run.ratio,
        "layer": lambda row: row.run.layer,
        "variant": lambda row: row.run.apart,
        "primary_metric": lambda row: row.run.primary_metric,
        "unit": lambda row: "fraction" if row.run.unit == "%" else "points",
        "value": lambda row: row.run.value,
        "relative": lambda row: row.relative,
        "relative_low": lambda row: row.paired.relative.low,
        "relative_high": lambda row: row.paired.relative.high,
        "difference": lambda row: row.difference,
        "difference_low": lambda row: row.paired.difference.low,
        "difference_high": lambda row: row.paired.difference.high,
        "mcnemar_p": lambda row: row.paired.p,
        "fixed": lambda row: row.paired.fixed,
        "regressed": lambda row: row.paired.regressed,
        "unparsed_rate": lambda row: row.run.unparsed_rate,
        "keep_ratio": lambda row: row.run.keep_ratio,
        "layer_average_ratio": lambda row: row.run.layer_average_ratio,
        "kv_cache_ratio": lambda row: row.run.kv_cache_ratio,
        "kv_cache_bytes": lambda row: row.run.kv_cache_bytes,
        "prefill_flops_ratio": lambda row: row.run.flops_ratio,
        "prefill_ms": lambda row: row.run.prefill_ms.median,
        "prefill_ms_q1": lambda row: row.run.prefill_ms.q1,
        "prefill_ms_q3": lambda row: row.run.prefill_ms.q3,
        "pruning_overhead_ms": lambda row: row.run.pruning_overhead_ms.median,
        "pruning_overhead_ms_q1": lambda row: row.run.pruning_overhead_ms.q1,
        "pruning_overhead_ms_q3": lambda row: row.run.pruning_overhead_ms.q3,
        "decode_ms_per_token": lambda row: row.run.decode_ms.median,
        "decode_ms_per_token_q1": lambda row: row.run.decode_ms.q1,
        "decode_ms_per_token_q3": lambda row: row.run.decode_ms.q3,
        "samples": lambda row: row.run.samples,
        "failed_samples": lambda row: row.run.failed_samples,
        "folder": lambda row: str(row.run.folder),
    }
)
"""What the CSV file holds: raw numbers, with their unit in the name where it is not plain."""

COLUMNS = (
    Column("model", lambda row: row.run.model, text=True, shared=True),
    Column("dataset", lambda row: dataset_name(row.run), text=True, shared=True),
    Column("pruner", lambda row: row.run.pruner, text=True),
    Column("variant", lambda row: plain(row.run.apart), text=True, optional=True),
    Column("ratio", lambda row: plain(row.run.ratio)),
    Column("layer", lambda row: plain(row.run.layer)),
    Column("metric", lambda row: metric_name(row.run), text=True, shared=True),
    Column("score", lambda row: score(row.run.value, row.run.unit)),
    Column("of\nunpruned %", lambda row: score(row.relative)),
    Column("difference\n[95 %]", difference),
    Column("p", lambda row: p_value(row.paired.p), paper=False),
    Column("fixed", lambda row: plain(row.paired.fixed), screen=False, paper=False),
    Column("regressed", lambda row: plain(row.paired.regressed), screen=False, paper=False),
    Column("kept %", lambda row: score(row.run.keep_ratio)),
    Column("layer\navg %", lambda row: score(row.run.layer_average_ratio), paper=False),
    Column("KV %", lambda row: score(row.run.kv_cache_ratio)),
    Column("KV MB", lambda row: megabytes(row.run.kv_cache_bytes), screen=False, paper=False),
    Column("FLOPs %", lambda row: score(row.run.flops_ratio)),
    Column("prefill\nms", lambda row: milliseconds(row.run.prefill_ms.median)),
    Column(
        "overhead\nms",
        lambda row: milliseconds(row.run.pruning_overhead_ms.median),
        screen=False,
        paper=False,
    ),
    Column("decode\nms/token", lambda row: milliseconds(row.run.decode_ms.median), paper=False),
    Column("samples", lambda row: plain(row.run.samples), paper=False),
)


def to_csv(rows: Sequence[Row]) -> str:
    """All fields of runs and tasks; an empty cell is a number that the run does not hold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for row in with_tasks(rows):
        writer.writerow([field(row) for field in FIELDS.values()])
    return text.getvalue()


def to_markdown(rows: Sequence[Row]) -> str:
    """A table in GitHub's Markdown; times are medians, FLOPs and prefill the language model's."""
    columns = filled(COLUMNS, rows)
    head = [column.heading.replace("\n", " ") for column in columns]
    rule = ["---" if column.text else "---:" for column in columns]
    cells = [[column.show(row) for column in columns] for row in with_tasks(rows)]
    return markdown_table([head, rule, *cells])


def filled(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """The columns without those that may be left out and are empty."""
    return [
        column
        for column in columns
        if not column.optional or any(column.show(row) != UNKNOWN for row in rows)
    ]


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells in GitHub's Markdown."""
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def by_block(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each dataset, model and metric by a title; tasks of a group are left out."""
    blocks: dict[str, list[Row]] = {}
    for row in rows:
        run = row.run
        title = f"{run.dataset} · {run.model} · {metric_name(run)}"
        blocks.setdefault(title, []).append(row)
    return blocks


def to_screen(rows: Sequence[Row], width: int) -> Group:
    """One table a block, in parts no wider than the screen.

    Args:
        rows: The rows.
        width: Characters of a line.
    """
    blocks = by_block(rows).items()
    return Group(*(part for title, block in blocks for part in _parts(title, block, width)))


def _parts(title: str, rows: Sequence[Row], width: int) -> list[Table]:
    shown = [column for column in COLUMNS if column.screen and not column.shared]
    columns = filled(shown, rows)
    first = 1 + max(place for place, column in enumerate(columns) if column.heading in METHOD)
    widths = [GAP + _width(column, rows) for column in columns]
    return [
        _drawn(title, rows, [columns[place] for place in part])
        for part in fitting(widths, first, width)
    ]


def _width(column: Column, rows: Sequence[Row]) -> int:
    """Characters of the longest line of a column, or word where it may be regressed."""
    texts = [column.heading, *(column.show(row) for row in rows)]
    lines = (text.split() if column.optional else text.split("\n") for text in texts)
    return max(len(line) for text in lines for line in text)


def _drawn(title: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    table = Table(
        title=escape(title),
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.text else "right"
        least = _width(column, rows) if column.optional else None
        table.add_column(
            column.heading, justify=justify, no_wrap=not column.optional, min_width=least
        )
    for number, row in enumerate(rows):
        if number and row.run.ratio != rows[number - 1].run.ratio:
            table.add_section()
        cells = [escape(column.show(row)) for column in columns]
        table.add_row(*cells, style="bold" if row.run.unpruned else None)
    return table
