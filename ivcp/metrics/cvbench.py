"""CV-Bench 2D: the mean over the sources of its photos."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ivcp.core.metric import Sums, divided
from ivcp.metrics.multiple_choice import MultipleChoiceMetrics


class CvBench2DMetrics(MultipleChoiceMetrics):
    """Mean over sources of the accuracy on each; the plain accuracy beside it.

    Example:
        >>> verdicts = pd.DataFrame({"score": [1.0, 0.0, 1.0], "source": ["COCO", "COCO", "ADE"]})
        >>> verdicts["parsed"] = "A"
        >>> CvBench2DMetrics().summarize(verdicts)["mean_over_sources"]
        0.75
    """

    headline = "mean_over_sources"

    def tallies(self, verdicts: pd.DataFrame) -> pd.DataFrame:
        """Two columns for each source: its score and its count."""
        sources = verdicts.get("source", pd.Series(index=verdicts.index, dtype=object)).fillna("")
        columns = {}
        for source in sorted(set(sources) - {""}):  # a row that cannot be read has none
            own = (sources == source).astype(float)
            columns[f"{source} score"], columns[f"{source} samples"] = own * verdicts["score"], own
        return pd.DataFrame(columns, index=verdicts.index)

    def headline_of(self, sums: Sums) -> Sums:
        accuracies = divided(sums[..., 0::2], sums[..., 1::2])
        there = ~np.isnan(accuracies)
        return divided(np.where(there, accuracies, 0.0).sum(-1), there.sum(-1))

    def summarize(self, verdicts: pd.DataFrame) -> Mapping[str, float]:
        """`mean_over_sources`, `accuracy`, `unparsed_rate`, and the accuracy by label."""
        mean = self.headline_of(self.tallies(verdicts).to_numpy(dtype=float).sum(0))
        return {self.headline: float(mean), **super().summarize(verdicts)}
