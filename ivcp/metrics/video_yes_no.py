"""Yes or no about clips: read strictly, or by the beginning of the reply, as TempCompass does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from ivcp.core.metric import AnswerMetric, Statistics, ToBox, by_label, unparsed_rate
from ivcp.core.types import Sample
from ivcp.metrics.compat import Compat
from ivcp.metrics.yes_no import YesNoMetrics, f1_statistics, rates


def begins_with(prediction: str) -> Literal["Yes", "No"] | None:
    """The word with which a reply begins, or a longer one ("nothing").

    >>> begins_with("Yes, it is"), begins_with("nothing moves"), begins_with("It does not.")
    ('Yes', 'No', None)
    """
    text = prediction.lower()
    return "Yes" if text.startswith("yes") else "No" if text.startswith("no") else None


class VideoYesNoMetrics(YesNoMetrics):
    """Accuracy of yes and no, also by dimension; precision, recall and F1 of "Yes" beside it.

    Args:
        compat: "strict" finds the word anywhere; "vlmevalkit" and "release" read the beginning.

    Raises:
        UserError: `compat` is something else.
    """

    primary_metric = "accuracy"

    def __init__(self, compat: Compat = "strict") -> None:
        super().__init__(compat)

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> Literal["Yes", "No"] | None:
        """The word yes or no, capitalised, or None."""
        if self.compat != "strict":
            return begins_with(self.text(prediction))
        return super().read(prediction, sample, to_box)

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        return AnswerMetric.sufficient_statistics(self, scored)

    def primary_value(self, sums: Statistics) -> Statistics:
        return AnswerMetric.primary_value(self, sums)

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`accuracy`, `precision`, `recall`, `f1`, `unparsed_rate`, and the accuracy by `dim`."""
        values = rates(f1_statistics(scored).to_numpy().sum(0))
        return {**values, "unparsed_rate": unparsed_rate(scored), **by_label(scored, "dim")}
