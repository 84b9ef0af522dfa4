"""Several datasets in one run."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from ivcp.core.errors import UserError
from ivcp.core.fields import check_fields
from ivcp.core.types import BrokenSample, Sample


@dataclass(frozen=True, kw_only=True)
class TaskGroup:
    """The samples of its tasks, one task after the other.

    A sample's id begins with the task's name, and its label "task" is that name.

    Attributes:
        tasks: For each name, a mapping whose "dataset" is a dataset that knows its `task` (its
            "metric" is for `ivcp.metrics.group_metrics`).
        limit_each: Most samples of each task, at least 1; None takes all.
    """

    tasks: Mapping[str, Mapping[str, Any]]
    limit_each: int | None = None

    def __post_init__(self) -> None:
        """Check the limit.

        Raises:
            UserError: It is no whole number or less than 1, or there is no task.
        """
        check_fields(self, "dataset.")
        if not self.tasks:
            raise UserError("A group needs tasks; dataset.tasks is empty.")
        if self.limit_each is not None and self.limit_each < 1:
            raise UserError(
                f"dataset.limit_each must be at least 1 or null; got {self.limit_each}."
            )

    @cached_property
    def _ends(self) -> list[int]:
        sizes = [len(task["dataset"]) for task in self.tasks.values()]
        limit = self.limit_each
        return list(accumulate(size if limit is None else min(size, limit) for size in sizes))

    @property
    def has_videos(self) -> bool:
        """Whether samples of a task hold videos."""
        return any(getattr(task["dataset"], "has_videos", False) for task in self.tasks.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of the tasks, each with its name."""
        return tuple(
            f"{name}: {note}"
            for name, task in self.tasks.items()
            for note in getattr(task["dataset"], "notes", ())
        )

    @property
    def identity(self) -> str:
        """The identities of the tasks."""
        return " ".join(
            f"{name}:{getattr(task['dataset'], 'identity', '')}"
            for name, task in self.tasks.items()
        )

    def sizes(self, index: int) -> tuple[tuple[int, int], ...]:
        """Width and height of each image, from the task; empty if they are unknown."""
        name, number = self._find(index)
        sizes = getattr(self.tasks[name]["dataset"], "sizes", None)
        return () if sizes is None else tuple(sizes(number))

    def sample_id(self, index: int) -> str:
        """The id of a sample, without its images where its task can tell it so."""
        name, number = self._find(index)
        dataset = self.tasks[name]["dataset"]
        read = getattr(dataset, "sample_id", lambda number: dataset[number].id)
        return f"{name}/{read(number)}"

    def _find(self, index: int) -> tuple[str, int]:
        """The task's name and the index into it."""
        task = bisect_right(self._ends, index)
        return list(self.tasks)[task], index - (self._ends[task - 1] if task else 0)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index from 0 to {len(self) - 1}; got {index}.")
        name, number = self._find(index)
        dataset = self.tasks[name]["dataset"]
        try:
            return _named(name, dataset[number])
        except BrokenSample as error:
            raise BrokenSample(_named(name, error.sample)) from error.__cause__
        except Exception as error:  # it must count in its task, whatever is wrong with it
            empty = Sample(
                id=f"index-{number}", task=dataset.task, images=(), question="", answer=""
            )
            raise BrokenSample(_named(name, empty)) from error


def _named(task: str, sample: Sample) -> Sample:
    labels = {**sample.labels, "task": task}
    return replace(sample, id=f"{task}/{sample.id}", labels=labels)
