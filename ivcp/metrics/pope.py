"""POPE: every question is asked once and counts in each of its categories."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ivcp.core.metric import unparsed_rate
from ivcp.metrics.yes_no import YesNoMetrics, f1_tallies, rates


def categories(verdicts: pd.DataFrame, label: str = "category") -> pd.Series[str]:
    """Names in a label that lists several, one row a name, the index that of the verdicts.

    >>> categories(pd.DataFrame({"category": ["random,popular", None]})).to_list()
    ['random', 'popular']
    """
    if label not in verdicts:
        return pd.Series(dtype=str)
    names = verdicts[label].dropna().astype(str).str.split(",").explode().str.strip()
    return names[names != ""]


class PopeMetrics(YesNoMetrics):
    """F1, accuracy, precision and recall over the 9,000 questions of three categories together.

    Only 5,127 of them are different; the file lists the categories of each ("adversarial,random").
    """

    def tallies(self, verdicts: pd.DataFrame) -> pd.DataFrame:
        """A question counts once for each of its categories; one without any counts once."""
        counts = categories(verdicts).groupby(level=0).size()
        times = counts.reindex(verdicts.index, fill_value=1)
        return f1_tallies(verdicts).mul(times, axis=0)

    def summarize(self, verdicts: pd.DataFrame) -> Mapping[str, float]:
        """`f1`, `accuracy`, `precision`, `recall`, `unparsed_rate`; F1 and the rest by category."""
        values = {**rates(self.tallies(verdicts).to_numpy().sum(0))}
        values["unparsed_rate"] = unparsed_rate(verdicts)
        single = f1_tallies(verdicts)
        for name, rows in categories(verdicts).groupby(categories(verdicts)):
            of_category = rates(single.loc[rows.index].to_numpy().sum(0))
            values[f"category/{name}"] = of_category.pop("f1")
            values |= {f"category/{name}/{key}": value for key, value in of_category.items()}
        return values
