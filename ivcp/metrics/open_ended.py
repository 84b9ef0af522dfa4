"""Open questions: the base of metrics that compare a reply with accepted texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import pandas as pd

from ivcp.core.metric import ToBox, by_label
from ivcp.core.types import Answer, Sample
from ivcp.metrics.compat import VlmEvalKitMetric, texts

LABELS = ("split", "category")


class OpenEndedMetrics(VlmEvalKitMetric):
    """Mean score of replies, also by split and category.

    An empty reply counts as unparsed, but is compared like any other.
    """

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> str:
        """The reply itself."""
        return self.text(prediction)

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        return self.compare(parsed, texts(sample.answer)) if isinstance(parsed, str) else 0.0

    @abstractmethod
    def compare(self, reply: str, accepted: Sequence[str]) -> float:
        """How right a reply is, in [0, 1].

        Args:
            reply: The model's text.
            accepted: One or more accepted texts.
        """

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """The mean score, `unparsed_rate`, and the mean score by label."""
        values = {self.primary_metric: float(scored["score"].mean())}
        values["unparsed_rate"] = empty_rate(scored)
        for label in LABELS:
            values |= by_label(scored, label)
        return values


def empty_rate(scored: pd.DataFrame) -> float:
    """Fraction of replies that are missing or blank.

    >>> empty_rate(pd.DataFrame({"parsed": ["a", " ", None, "b"]}))
    0.5
    """
    return float(scored["parsed"].fillna("").astype(str).str.strip().eq("").mean())
