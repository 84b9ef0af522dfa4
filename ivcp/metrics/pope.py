"""POPE: every question has one answer, which counts in each of the question's categories."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ivcp.core.metric import sum_by_image, unparsed_rate
from ivcp.metrics.yes_no import YesNoMetrics, f1_statistics, rates


def categories(scored: pd.DataFrame, label: str = "category") -> pd.Series[str]:
    """Names in a label that lists several, one row a name, the index that of the scored.

    >>> categories(pd.DataFrame({"category": ["random,popular", None]})).to_list()
    ['random', 'popular']
    """
    if label not in scored:
        return pd.Series(dtype=str)
    names = scored[label].dropna().astype(str).str.split(",").explode().str.strip()
    return names[names != ""]


class PopeMetrics(YesNoMetrics):
    """F1, accuracy, precision and recall over the 9,000 questions of three categories together.

    Only 5,127 of them are different; the file lists the categories of each ("adversarial,random").
    """

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        """A question counts once for each of its categories; one without any counts once."""
        counts = categories(scored).groupby(level=0).size()
        times = counts.reindex(scored.index, fill_value=1)
        return sum_by_image(f1_statistics(scored).mul(times, axis=0), scored)

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`f1`, `accuracy`, `precision`, `recall`, `unparsed_rate`; F1 and the rest by category."""
        values = {**rates(self.sufficient_statistics(scored).to_numpy().sum(0))}
        values["unparsed_rate"] = unparsed_rate(scored)
        single = f1_statistics(scored)
        for name, rows in categories(scored).groupby(categories(scored)):
            of_category = rates(single.loc[rows.index].to_numpy().sum(0))
            values[f"category/{name}"] = of_category.pop("f1")
            values |= {f"category/{name}/{key}": value for key, value in of_category.items()}
        return values
