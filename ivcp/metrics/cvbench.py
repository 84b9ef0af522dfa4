"""CV-Bench 2D: the mean over the sources of its images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ivcp.core.metric import Statistics, divided, sum_by_image
from ivcp.metrics.multiple_choice import MultipleChoiceMetrics


class CvBench2DMetrics(MultipleChoiceMetrics):
    """Mean over sources of the accuracy on each; the plain accuracy beside it.

    Example:
        >>> scored = pd.DataFrame({"score": [1.0, 0.0, 1.0], "source": ["COCO", "COCO", "ADE"]})
        >>> scored["parsed"] = "A"
        >>> CvBench2DMetrics().summarize(scored)["mean_over_sources"]
        0.75
    """

    primary_metric = "mean_over_sources"

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        """Two columns for each source: its score and its count."""
        sources = scored.get("source", pd.Series(index=scored.index, dtype=object)).fillna("")
        columns = {}
        for source in sorted(set(sources) - {""}):  # a row that cannot be read has none
            inside = (sources == source).astype(float)
            columns[f"{source} score"] = inside * scored["score"]
            columns[f"{source} samples"] = inside
        return sum_by_image(pd.DataFrame(columns, index=scored.index), scored)

    def primary_value(self, sums: Statistics) -> Statistics:
        accuracies = divided(sums[..., 0::2], sums[..., 1::2])
        present = ~np.isnan(accuracies)
        return divided(np.where(present, accuracies, 0.0).sum(-1), present.sum(-1))

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`mean_over_sources`, `accuracy`, `unparsed_rate`, and the accuracy by label."""
        mean = self.primary_value(self.sufficient_statistics(scored).to_numpy(dtype=float).sum(0))
        return {self.primary_metric: float(mean), **super().summarize(scored)}
