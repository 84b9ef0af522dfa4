"""OCRBench: does the accepted text stand in the reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from ivcp.core.metric import Statistics, ToBox, by_label
from ivcp.core.types import Answer, Sample
from ivcp.metrics.compat import VlmEvalKitMetric, texts
from ivcp.metrics.open_ended import empty_rate

MATHS = "Handwritten Mathematical Expression Recognition"
TEXT = (
    "Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition",
    "Handwriting Recognition", "Digit String Recognition", "Non-Semantic Text Recognition",
)  # fmt: skip
"""Categories that together are "text recognition"."""


def stands_in(accepted: str, reply: str, maths: bool = False) -> bool:
    """Whether a reply holds a text: in lower case, or without any space for a formula.

    >>> stands_in("CENTRE", "centre 5"), stands_in("x^{2}", "x ^ { 2 }", maths=True)
    (True, True)
    """
    if maths:
        wanted, text = ("".join(text.strip().split()) for text in (accepted, reply))
    else:
        wanted, text = (text.strip().lower().replace("\n", " ") for text in (accepted, reply))
    return wanted in text


class OcrBenchMetrics(VlmEvalKitMetric):
    """Points of 1,000 (a thousand times the accuracy), and the accuracy by kind of question.

    Any of the accepted texts will do, a part of a word too.
    """

    primary_metric = "final_score"
    highest = 1000.0

    def unit(self, name: str) -> Literal["%", ""]:
        return "" if name == self.primary_metric else "%"

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> str:
        """The reply itself."""
        return self.text(prediction)

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        """1 if right, else 0."""
        if not isinstance(parsed, str):
            return 0.0
        maths = sample.labels.get("category") == MATHS
        return float(any(stands_in(text, parsed, maths) for text in texts(sample.answer)))

    def primary_value(self, sums: Statistics) -> Statistics:
        return self.highest * super().primary_value(sums)

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`final_score` in points; `text_recognition`, `unparsed_rate`, accuracy by category."""
        reading = scored.get("category", pd.Series(index=scored.index, dtype=object)).isin(TEXT)
        return {
            "final_score": self.highest * float(scored["score"].mean()),
            "text_recognition": float(scored["score"][reading].mean()),
            "unparsed_rate": empty_rate(scored),
            **by_label(scored, "category"),
        }
