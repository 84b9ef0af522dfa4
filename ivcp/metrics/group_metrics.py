"""Several datasets in one run: each scored by its own metric, and their average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

import numpy as np
import pandas as pd

from ivcp.core.errors import UserError
from ivcp.core.metric import AnswerMetric, ToBox
from ivcp.core.types import Answer, Sample

AVERAGE = "average"


class GroupMetrics(AnswerMetric):
    """Values of each task as "task/name", and averages over the tasks.

    The primary metric is the mean of the tasks' primary ones, each as a fraction of its highest
    value. Where all tasks have one kind of metric, as the splits of the RefCOCO family, every
    value has its average, and the common primary metric's stands for the group.

    Args:
        tasks: For each name, a mapping whose "metric" is a metric (its "dataset" is for
            `ivcp.datasets.task_group`).

    Raises:
        UserError: There is no task.

    Example:
        >>> from ivcp.metrics.exact_match import ExactMatch
        >>> group = GroupMetrics({"a": {"metric": ExactMatch()}, "b": {"metric": ExactMatch()}})
        >>> rows = {"task": ["a", "a", "b"], "score": [1.0, 0.0, 1.0], "parsed": "x"}
        >>> group.summarize(pd.DataFrame(rows))["accuracy"]
        0.75
    """

    def __init__(self, tasks: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        if not tasks:
            raise UserError("A group needs tasks; metric.tasks is empty.")
        self.tasks: dict[str, AnswerMetric] = {name: task["metric"] for name, task in tasks.items()}
        kinds = {type(metric) for metric in self.tasks.values()}
        self.alike = len(kinds) == 1
        if self.alike:
            metric = next(iter(self.tasks.values()))
            self.primary_metric, self.highest = metric.primary_metric, metric.highest  # type: ignore[misc]
        else:
            self.primary_metric = AVERAGE  # type: ignore[misc]

    def _metric_of(self, sample: Sample) -> AnswerMetric:
        return self.tasks[sample.labels["task"]]

    def _parts(self, scored: pd.DataFrame) -> dict[str, pd.DataFrame]:
        tasks = scored.get("task", pd.Series(index=scored.index, dtype=object))
        return {name: scored[tasks == name] for name in self.tasks}

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> Answer | None:
        return self._metric_of(sample).read(prediction, sample, to_box)

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        return self._metric_of(sample).score(parsed, sample)

    def judge_prompt(self, prediction: str, parsed: Answer | None, sample: Sample) -> str | None:
        return self._metric_of(sample).judge_prompt(prediction, parsed, sample)

    def parse_judge_reply(self, reply: str, sample: Sample) -> tuple[Answer | None, float] | None:
        return self._metric_of(sample).parse_judge_reply(reply, sample)

    def unit(self, name: str) -> Literal["%", ""]:
        task, _, value = name.partition("/")
        if task in self.tasks:
            return self.tasks[task].unit(value)
        return next(iter(self.tasks.values())).unit(name) if self.alike else "%"

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        """Undefined: each task's are those of its metric."""
        raise NotImplementedError("A group is resampled task by task.")

    def notes(self, scored: pd.DataFrame) -> Sequence[str]:
        parts = self._parts(scored)
        return tuple(
            f"{name}: {note}"
            for name, metric in self.tasks.items()
            if len(parts[name])
            for note in metric.notes(parts[name])
        )

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """Averages, then the values of each task of which there are samples."""
        values: dict[str, float] = {}
        parts = self._parts(scored)
        of_task = {
            name: metric.summarize(parts[name])
            for name, metric in self.tasks.items()
            if len(parts[name])
        }
        common = [name for name in next(iter(of_task.values()), {}) if "/" not in name]
        if self.alike:
            values |= {name: fmean(each[name] for each in of_task.values()) for name in common}
        elif of_task:
            values[AVERAGE] = fmean(
                each[self.tasks[name].primary_metric] / self.tasks[name].highest
                for name, each in of_task.items()
            )
            values["unparsed_rate"] = fmean(each["unparsed_rate"] for each in of_task.values())
        if not of_task:
            values = {self.primary_metric: np.nan, "unparsed_rate": np.nan}
        for name, each in of_task.items():
            values |= {f"{name}/{key}": value for key, value in each.items()}
        return values
