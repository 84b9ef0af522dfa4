"""MMMU: the validation split counts, the questions for development stand beside it."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from ivcp.metrics.multiple_choice import MultipleChoiceMetrics

COUNTED = "validation"


class MmmuMetrics(MultipleChoiceMetrics):
    """Accuracy on the validation split, and on both by label.

    All rows of a file without splits count.

    A question without options is one between its answer (A) and "Other Answers" (B), as VLMEvalKit
    has it. Where the answer is a single letter, its rule misreads replies: with the answer "B", the
    reply "B" is the option "Other Answers" and wrong; with "C" or a later letter, each reply of up
    to 28 characters that holds the letter anywhere ("cat") is right.

    Example:
        >>> rows = {"score": [1.0, 0.0, 0.0], "split": ["validation", "validation", "dev"]}
        >>> MmmuMetrics().summarize(pd.DataFrame({**rows, "parsed": "A"}))["accuracy"]
        0.5
    """

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        return super().sufficient_statistics(counted(scored))

    def right(self, scored: pd.DataFrame) -> pd.Series[bool]:
        return super().right(counted(scored))

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`accuracy` of what counts, `unparsed_rate`, and the accuracy by label."""
        values = dict(super().summarize(scored))
        values["accuracy"] = float(counted(scored)["score"].mean())
        return values


def counted(scored: pd.DataFrame) -> pd.DataFrame:
    """The rows that count; those without a label do, because they are failures."""
    if "split" not in scored:
        return scored
    return scored[scored["split"].isna() | (scored["split"] == COUNTED)]
