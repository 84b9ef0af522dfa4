"""HallusionBench: right by question, by figure, and by question over all its figures."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ivcp.core.metric import Statistics, divided, unparsed_rate
from ivcp.metrics.yes_no import YesNoMetrics

FIELDS = {"set": 3, "figure": 4, "question": 5}
"""Positions in an index "VD_illusion_<visual input>_<set>_<figure>_<question>"."""
GROUPS = ("figure", "question")


class HallusionBenchMetrics(YesNoMetrics):
    """Accuracy of all answers, of figures, of questions, and the mean of the three.

    A figure is right if all questions about it are, a question if it is on all its figures. Sets of
    the same number differ by the label "l2-category", as upstream has it.

    Example:
        >>> rows = {"index": ["VD_ocr_0_0_0_0", "VD_ocr_0_0_0_1"], "score": [1.0, 0.0]}
        >>> HallusionBenchMetrics().summarize(pd.DataFrame({**rows, "parsed": "Yes"}))["qAcc"]
        0.5
    """

    primary_metric = "mean_accuracy"

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        """A unit is a set of figures; each accuracy has a sum and a count."""
        keyed = keys(scored)
        answers = keyed.groupby("set")["score"]
        columns = {"right": answers.sum(), "answers": answers.size().astype(float)}
        for group in GROUPS:
            groups = keyed.groupby(["set", group])["score"].min().groupby(level="set")
            columns |= {f"{group} right": groups.sum(), f"{group}s": groups.size().astype(float)}
        return pd.DataFrame(columns)

    def primary_value(self, sums: Statistics) -> Statistics:
        mean: Statistics = divided(sums[..., 0::2], sums[..., 1::2]).mean(-1)
        return mean

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`mean_accuracy`, `aAcc`, `fAcc`, `qAcc`, `unparsed_rate`, and all four by category."""
        values = {**self._accuracies(scored), "unparsed_rate": unparsed_rate(scored)}
        for label in ("category", "l2-category"):
            for name, rows in scored.groupby(label) if label in scored else ():
                of_label = self._accuracies(rows)
                values[f"{label}/{name}"] = of_label.pop(self.primary_metric)
                values |= {f"{label}/{name}/{key}": value for key, value in of_label.items()}
        return values

    def _accuracies(self, scored: pd.DataFrame) -> dict[str, float]:
        sums = self.sufficient_statistics(scored).to_numpy().sum(0)
        names = ("aAcc", "fAcc", "qAcc")
        each = divided(sums[0::2], sums[1::2]).tolist()
        return {
            self.primary_metric: float(self.primary_value(sums)),
            **dict(zip(names, each, strict=True)),
        }


def keys(scored: pd.DataFrame) -> pd.DataFrame:
    """`score`, and which set, figure and question each answer is about."""
    index = scored.get("index", pd.Series(index=scored.index, dtype=str)).astype(str)
    parts = index.str.split("_", n=6, expand=True).reindex(columns=range(6), fill_value="")
    kind = scored.get("l2-category", pd.Series("", index=scored.index)).fillna("")
    groups = {name: parts[position].astype(str) for name, position in FIELDS.items()}
    groups["set"] = kind.astype(str) + "_" + groups["set"]
    return pd.DataFrame({"score": scored["score"], **groups})
