"""Tables of runs and of task groups, ready for any writer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ivcp.core.printable import printable
from ivcp.report.columns import (
    COLUMNS,
    COMMAND,
    COMMON,
    DIFFERENCE,
    GROUP,
    MARK,
    MODEL,
    PLAIN_DIFFERENCE,
    PRUNER,
    RELATIVE,
    SCORE,
    SIGNIFICANT,
    UNKNOWN,
    VALUE,
    Column,
    Value,
    Where,
    marked_score,
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
        ranks: For each column 1 for the best value of a budget, 2 for the second.
        unpruned: Whether the line is a baseline.
        ruled: Whether a rule sets it apart from the line before.
    """

    values: tuple[Value, ...]
    cells: tuple[str, ...]
    ranks: tuple[int, ...]
    unpruned: bool
    ruled: bool


@dataclass(frozen=True)
class Table:
    """Headings and cells.

    Attributes:
        title: One line.
        columns: What the columns hold.
        lines: A value and a cell for each column.
        note: What a reader of the table alone must know; without a full stop.
    """

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    note: str = ""


def make_table(
    entries: Sequence[Entry], columns: Sequence[Column], title: str = "", all_columns: bool = False
) -> Table:
    """One line an entry, with a rule where the budget changes.

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
    values = {column: [column.value(entry) for entry in entries] for column in cells}
    ranks = {
        column: _ranks(entries, values[column]) if column.ranked else [0] * len(entries)
        for column in cells
    }
    lines = [
        Line(
            values=tuple(column_values[number] for column_values in values.values()),
            cells=tuple(column_cells[number] for column_cells in cells.values()),
            ranks=tuple(column_ranks[number] for column_ranks in ranks.values()),
            unpruned=entry.info.unpruned,
            ruled=number > 0 and _budget(entry) != _budget(entries[number - 1]),
        )
        for number, entry in enumerate(entries)
    ]
    return Table(title, tuple(cells), tuple(lines))


def _budget(entry: Entry) -> tuple[bool, str]:
    return entry.info.unpruned, entry.target


def _ranks(entries: Sequence[Entry], values: Sequence[Value]) -> list[int]:
    """1 for the best of the runs that a reader compares, 2 for the second, as they are shown.

    These are pruned runs of one model, dataset, metric and budget; one alone is not the best.
    """
    blocks: dict[object, list[tuple[int, float]]] = {}
    for number, (entry, value) in enumerate(zip(entries, values, strict=True)):
        if not entry.info.unpruned and isinstance(value, float):
            key = entry.info.model, entry.name, entry.metric.name, entry.target
            shown = round(value, 3 if entry.metric.unit else 1)
            blocks.setdefault(key, []).append((number, shown))
    ranks = [0] * len(entries)
    for block in blocks.values():
        best = sorted({shown for _, shown in block}, reverse=True)[:2]
        for number, shown in block:
            if len(block) > 1 and shown in best:
                ranks[number] = 1 + best.index(shown)
    return ranks


def all_numbers(entries: Sequence[Entry]) -> Table:
    """Everything that is known of runs and tasks."""
    return make_table(with_tasks(entries), COLUMNS, all_columns=True)


def all_lines(entries: Sequence[Entry]) -> Table:
    """Runs and tasks with what readers want to know of them, and the command of each.

    Columns that say the same of all lines are left out: `common_settings` says it once.
    """
    lines = with_tasks(entries)
    columns = [
        column
        for column in columns_of(Where.LIST)
        if column.name not in COMMON or len({column.value(line) for line in lines}) > 1
    ]
    return make_table(lines, [*columns, replace(COMMAND, heading=COMMAND.name)])


def task_table(entries: Sequence[Entry]) -> Table:
    """The same of tasks alone."""
    tasks = [task for entry in entries for task in entry.tasks]
    return make_table(tasks, columns_of(Where.LIST))


def run_tables(entries: Sequence[Entry], where: Where, intervals: bool = True) -> list[Table]:
    """One table for each dataset, model and metric; tasks of a group are left out.

    Args:
        entries: The runs.
        where: For which readers.
        intervals: Whether differences have their intervals.
    """
    columns = columns_of(where)
    if not intervals:
        columns = [PLAIN_DIFFERENCE if each.name == DIFFERENCE else each for each in columns]
    blocks: dict[str, list[Entry]] = {}
    for entry in entries:
        title = f"{entry.dataset} · {entry.info.model} · {metric_name(entry)}"
        blocks.setdefault(title, []).append(entry)
    return [make_table(block, columns, title) for title, block in blocks.items()]


def group_tables(entries: Sequence[Entry], paper: bool = False) -> list[Table]:
    """One table for each group and model: a line a run, a column a task, and the average.

    Runs on several datasets are a group, too.

    Args:
        entries: The runs.
        paper: Whether cells hold the score and the mark alone, as papers print them.
    """
    cell = replace(SCORE, show=marked_score) if paper else SCORE
    groups: dict[str, list[Entry]] = {}
    for entry in (*entries, *over_sets(entries)):
        if entry.tasks:
            title = f"{entry.dataset} · {entry.info.model} · by task"
            groups.setdefault(title, []).append(entry)
    tables = []
    for title, runs in groups.items():
        columns = columns_of(Where.GROUP)
        columns += [
            cell.of_task(name, name, _heading(name, task)) for name, task in _tasks(runs).items()
        ]
        columns.append(replace(cell, name=AVERAGE, heading=_heading(AVERAGE, runs[0]), kept=False))
        columns.append(_mean_relative(runs))
        table = make_table(runs, columns, title)
        marked = any(task.paired.significant for run in runs for task in (run, *run.tasks))
        tables.append(replace(table, note=f"{MARK}: {MARKED[:-1]}") if marked else table)
    return tables


def group_numbers(entries: Sequence[Entry]) -> Table:
    """The runs of groups: of each task the score, its relation to the unpruned one, the mark."""
    runs = [entry for entry in (*entries, *over_sets(entries)) if entry.tasks]
    columns = [MODEL, GROUP, PRUNER, *columns_of(Where.GROUP)]
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

    return Column("mean_relative", mean, "mean of\nunpruned %", style=score, ranked=True)


def _tasks(runs: Sequence[Entry]) -> dict[str, Entry]:
    return {task.dataset: task for run in runs for task in run.tasks}


def _heading(name: str, entry: Entry) -> str:
    unit = "" if entry.metric.unit else " (points)"
    return f"{printable(name)}\n{printable(entry.metric.name)}{unit}"
