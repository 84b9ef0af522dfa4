"""Runs in order, each beside its unpruned baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ivcp.report.comparison import NOT_PAIRED, Paired
from ivcp.report.runs import Run, baseline_of


@dataclass(frozen=True)
class Row:
    """A run and how it stands to the unpruned one.

    Attributes:
        run: The run, or a task of a group.
        base: The unpruned one, which may be the run itself; None if there is none.
        paired: Statistics over their samples, where there are any.
        tasks: Rows of a group's tasks, in its order.
    """

    run: Run
    base: Run | None = None
    paired: Paired = NOT_PAIRED
    tasks: tuple[Row, ...] = ()

    @property
    def relative(self) -> float | None:
        """Primary metric over that of the unpruned run, 1 for equal."""
        base = self.base.value if self.base else None
        return self.run.value / base if base and self.run.value is not None else None

    @property
    def difference(self) -> float | None:
        """Primary metric minus that of the unpruned run; None for the unpruned run itself."""
        if self.base is None or self.base is self.run:
            return None
        if self.base.value is None or self.run.value is None:
            return None
        return self.run.value - self.base.value


def make_rows(runs: Sequence[Run], paired: Mapping[Run, Paired] | None = None) -> list[Row]:
    """Rows by dataset and model, then from large to small ratio, then from good to bad.

    Args:
        runs: The runs with their baselines.
        paired: Statistics of runs and tasks.
    """
    told = paired or {}
    unpruned = [run for run in runs if run.unpruned]
    rows = []
    for run in runs:
        base = baseline_of(run, unpruned)
        bases = {task.dataset: task for task in base.tasks} if base else {}
        tasks = tuple(
            Row(task, bases.get(task.dataset), told.get(task, NOT_PAIRED)) for task in run.tasks
        )
        rows.append(Row(run, base, told.get(run, NOT_PAIRED), tasks))
    return sorted(rows, key=_order)


def with_tasks(rows: Sequence[Row]) -> list[Row]:
    """The rows of groups followed by those of their tasks."""
    return sorted((one for row in rows for one in (row, *row.tasks)), key=_order)


def dataset_name(run: Run) -> str:
    """The set; of a task, after its group."""
    return f"{run.group}/{run.dataset}" if run.group else run.dataset


def _order(row: Row) -> tuple[str, str, str, bool, float, float, str, str]:
    run = row.run
    ratio, value = run.ratio or 0.0, -1.0 if run.value is None else run.value
    place = (run.group, run.dataset) if run.group else (run.dataset, "")
    return place[0], run.model, place[1], not run.unpruned, -ratio, -value, run.pruner, run.layer
