"""Tables of runs and of task groups, ready for any writer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ivcp.core.printable import printable
from ivcp.report.columns import (
    COLUMNS,
    GROUP,
    MARK,
    MODEL,
    RELATIVE,
    SCORE,
    SIGNIFICANT,
    UNKNOWN,
    VALUE,
    Column,
    Value,
    Where,
    metric_name,
    score,
)
from ivcp.report.comparison import Entry, over_sets, with_tasks

AVERAGE = "average"
MARKED = (
    "the 95 % interval of the difference leaves out 0 and p is below 0.05, as happens "
    "up to once in twenty times where nothing differs."
)


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        values: Raw numbers and texts.
        cells: The same for readers.
        unpruned: Whether the line is a baseline.
        ruled: Whether a rule sets it apart from the line before.
    """

    values: tuple[Value, ...]
    cells: tuple[str, ...]
    unpruned: bool
    ruled: bool


@dataclass(frozen=True)
class Table:
    """Headings and cells.

    Attributes:
        title: One line.
        columns: What the columns hold.
        lines: A value and a cell for each column.
    """

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


def make_table(
    entries: Sequence[Entry], columns: Sequence[Column], title: str = "", all_columns: bool = False
) -> Table:
    """One line an entry, with a rule where the ratio changes.

    Args:
        entries: The lines.
        columns: The columns; those of which nothing is known are left out.
        title: Of the table.
        all_columns: Whether to keep them.
    """
    cells = {
        column: cells
        for column in columns
        if set(cells := [column.cell(entry) for entry in entries]) != {UNKNOWN}
        or column.kept
        or all_columns
    }
    lines = [
        Line(
            values=tuple(column.value(entry) for column in cells),
            cells=tuple(column_cells[number] for column_cells in cells.values()),
            unpruned=entry.info.unpruned,
            ruled=number > 0 and entry.ratio != entries[number - 1].ratio,
        )
        for number, entry in enumerate(entries)
    ]
    return Table(title, tuple(cells), tuple(lines))


def all_numbers(entries: Sequence[Entry]) -> Table:
    """Everything that is known of runs and tasks."""
    return make_table(with_tasks(entries), COLUMNS, all_columns=True)


def all_lines(entries: Sequence[Entry]) -> Table:
    """Runs and tasks with what readers want to know of them."""
    return make_table(with_tasks(entries), columns_of(Where.LIST))


def task_table(entries: Sequence[Entry]) -> Table:
    """The same of tasks alone."""
    tasks = [task for entry in entries for task in entry.tasks]
    return make_table(tasks, columns_of(Where.LIST))


def run_tables(entries: Sequence[Entry], where: Where) -> list[Table]:
    """One table for each dataset, model and metric; tasks of a group are left out."""
    blocks: dict[str, list[Entry]] = {}
    for entry in entries:
        title = f"{entry.dataset} · {entry.info.model} · {metric_name(entry)}"
        blocks.setdefault(title, []).append(entry)
    return [make_table(block, columns_of(where), title) for title, block in blocks.items()]


def group_tables(entries: Sequence[Entry]) -> list[Table]:
    """One table for each group and model: a line a run, a column a task, and the average."""
    groups: dict[str, list[Entry]] = {}
    for entry in (*entries, *over_sets(entries)):
        if entry.tasks:
            title = f"{entry.dataset} · {entry.info.model} · by task"
            groups.setdefault(title, []).append(entry)
    tables = []
    for title, runs in groups.items():
        columns = columns_of(Where.GROUP)
        columns += [
            SCORE.of_task(name, name, _heading(name, task)) for name, task in _tasks(runs).items()
        ]
        columns.append(replace(SCORE, name=AVERAGE, heading=_heading(AVERAGE, runs[0])))
        columns.append(_mean_relative(runs))
        tables.append(make_table(runs, columns, title))
    return tables


def group_numbers(entries: Sequence[Entry]) -> Table:
    """The runs of groups: of each task the score, its relation to the unpruned one, the mark."""
    runs = [entry for entry in (*entries, *over_sets(entries)) if entry.tasks]
    columns = [MODEL, GROUP, *columns_of(Where.GROUP)]
    numbers = (("", VALUE), ("_relative", RELATIVE), ("_significant", SIGNIFICANT))
    for name in _tasks(runs):
        columns += [column.of_task(name, f"{name}{kind}") for kind, column in numbers]
    columns += [replace(column, name=f"{AVERAGE}{kind}") for kind, column in numbers]
    columns.append(_mean_relative(runs))
    return make_table(runs, columns, all_columns=True)


def group_caption(entries: Sequence[Entry]) -> str:
    """What the cells of group tables hold; the mark is explained if there are intervals."""
    lines = [line for entry in entries if entry.tasks for line in (entry, *entry.tasks)]
    paired = any(line.paired.significant is not None for line in lines)
    return "Score (percent of the unpruned score)" + (f"; {MARK}: {MARKED}" if paired else ".")


def columns_of(where: Where) -> list[Column]:
    """The columns that tables of one kind have."""
    return [column for column in COLUMNS if where in column.where]


def _mean_relative(runs: Sequence[Entry]) -> Column:
    """Mean over the tasks of the percentage of the unpruned score, as papers report it."""
    by_title: dict[tuple[str, str], list[Entry]] = {}
    for run in runs:
        by_title.setdefault((run.dataset, run.info.model), []).append(run)

    def mean(entry: Entry) -> float | None:
        names = _tasks(by_title[entry.dataset, entry.info.model])
        tasks = [task for name in names if (task := entry.task(name))]
        relative = [task.relative for task in tasks if task.relative is not None]
        return sum(relative) / len(names) if len(relative) == len(names) else None

    return Column("mean_relative", mean, "mean of\nunpruned %", style=score)


def _tasks(runs: Sequence[Entry]) -> dict[str, Entry]:
    return {task.dataset: task for run in runs for task in run.tasks}


def _heading(name: str, entry: Entry) -> str:
    unit = "" if entry.metric.unit else " (points)"
    return f"{printable(name)}\n{printable(entry.metric.name)}{unit}"
