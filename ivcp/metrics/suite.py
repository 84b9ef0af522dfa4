"""Several sets in one run: each judged by its own metric, and their average."""

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


class SuiteMetrics(AnswerMetric):
    """Values of each member as "member/name", and averages over the members.

    The primary metric is the mean of the members' primary ones, each as a fraction of its highest
    value. Where all members have one kind of metric, as the splits of the RefCOCO family, every
    value has its average, and the common primary metric's stands for the suite.

    Args:
        members: For each name, a mapping whose "metric" is a metric (its "dataset" is for
            `ivcp.datasets.suite`).

    Raises:
        UserError: There is no member.

    Example:
        >>> from ivcp.metrics.exact_match import ExactMatch
        >>> suite = SuiteMetrics({"a": {"metric": ExactMatch()}, "b": {"metric": ExactMatch()}})
        >>> rows = {"member": ["a", "a", "b"], "score": [1.0, 0.0, 1.0], "parsed": "x"}
        >>> suite.summarize(pd.DataFrame(rows))["accuracy"]
        0.75
    """

    def __init__(self, members: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        if not members:
            raise UserError("A suite needs members; metric.members is empty.")
        self.members: dict[str, AnswerMetric] = {
            name: member["metric"] for name, member in members.items()
        }
        kinds = {type(metric) for metric in self.members.values()}
        self.alike = len(kinds) == 1
        if self.alike:
            first = next(iter(self.members.values()))
            self.primary_metric, self.highest = first.primary_metric, first.highest  # type: ignore[misc]
        else:
            self.primary_metric = AVERAGE  # type: ignore[misc]

    def _of(self, sample: Sample) -> AnswerMetric:
        return self.members[sample.labels["member"]]

    def _parts(self, scored: pd.DataFrame) -> dict[str, pd.DataFrame]:
        own = scored.get("member", pd.Series(index=scored.index, dtype=object))
        return {name: scored[own == name] for name in self.members}

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> Answer | None:
        return self._of(sample).read(prediction, sample, to_box)

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        return self._of(sample).score(parsed, sample)

    def judge_prompt(self, prediction: str, parsed: Answer | None, sample: Sample) -> str | None:
        return self._of(sample).judge_prompt(prediction, parsed, sample)

    def parse_judge_reply(self, reply: str, sample: Sample) -> tuple[Answer | None, float] | None:
        return self._of(sample).parse_judge_reply(reply, sample)

    def unit(self, name: str) -> Literal["%", ""]:
        member, _, own = name.partition("/")
        if member in self.members:
            return self.members[member].unit(own)
        return next(iter(self.members.values())).unit(name) if self.alike else "%"

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        """Not to be had: each member's are its own metric's."""
        raise NotImplementedError("A suite is resampled member by member.")

    def notes(self, scored: pd.DataFrame) -> Sequence[str]:
        parts = self._parts(scored)
        return tuple(
            f"{name}: {note}"
            for name, metric in self.members.items()
            if len(parts[name])
            for note in metric.notes(parts[name])
        )

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """Averages, then the values of each member of which there are samples."""
        values: dict[str, float] = {}
        parts = self._parts(scored)
        of_member = {
            name: metric.summarize(parts[name])
            for name, metric in self.members.items()
            if len(parts[name])
        }
        common = [name for name in next(iter(of_member.values()), {}) if "/" not in name]
        if self.alike:
            values |= {name: fmean(own[name] for own in of_member.values()) for name in common}
        elif of_member:
            values[AVERAGE] = fmean(
                own[self.members[name].primary_metric] / self.members[name].highest
                for name, own in of_member.items()
            )
            values["unparsed_rate"] = fmean(own["unparsed_rate"] for own in of_member.values())
        if not of_member:
            values = {self.primary_metric: np.nan, "unparsed_rate": np.nan}
        for name, own in of_member.items():
            values |= {f"{name}/{key}": value for key, value in own.items()}
        return values
