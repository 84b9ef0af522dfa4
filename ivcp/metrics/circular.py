"""MMBench: a question counts if it is answered rightly in every rotation of its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ivcp.core.metric import by_label, unparsed_rate
from ivcp.core.types import IMAGE_ID
from ivcp.metrics.multiple_choice import LABELS, MultipleChoiceMetrics

NUMBER = r"[0-9]{1,18}"
ROTATION = 1_000_000
"""A rotation's index is that of the question plus a multiple of this number."""


def by_question(scored: pd.DataFrame) -> pd.DataFrame:
    """One row a question: `score` 1 if all `rotations` are right, `base` the score of the first.

    Labels are those of the first rotation. Rows belong together by the label "index"; a row whose
    index is no number (it could not be read) is a question of its own.

    >>> rows = {"index": ["3", "1000003", "4"], "score": [1.0, 0.0, 1.0]}
    >>> by_question(pd.DataFrame(rows))[["score", "base"]].values.tolist()
    [[0.0, 1.0], [1.0, 1.0]]
    """
    labels = scored.get("index", pd.Series(index=scored.index, dtype=object)).astype(str)
    alone = pd.Series(-1 - np.arange(len(scored)), index=scored.index)
    numbers = labels.where(labels.str.fullmatch(NUMBER), alone).astype("int64")
    question = numbers.where(numbers < 0, numbers % ROTATION)
    ordered = scored.assign(question=question, number=numbers).sort_values("number")
    ordered["base"] = ordered["score"]
    kept = {label: "first" for label in (*LABELS, IMAGE_ID) if label in ordered}
    ordered["rotations"] = 1
    columns = {"score": "min", "base": "first", "rotations": "sum", **kept}
    return ordered.groupby("question").agg(columns)


class CircularMetrics(MultipleChoiceMetrics):
    """Circular accuracy, with the plain ones beside it.

    A rotation that is wrong or cannot be read fails its question.
    """

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        """A unit is an image, with all rotations of its questions."""
        return super().sufficient_statistics(by_question(scored))

    def right(self, scored: pd.DataFrame) -> pd.Series[bool]:
        return super().right(by_question(scored))

    def notes(self, scored: pd.DataFrame) -> Sequence[str]:
        """Whether questions are there in one rotation only, as under a limit."""
        rotations = by_question(scored)["rotations"]
        if not (single := int((rotations == 1).sum())):
            return ()
        return (
            f"{single:,} of {len(rotations):,} questions are there in one rotation only, so their "
            "circular accuracy is the plain one, which is higher.",
        )

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """Circular `accuracy`, also by label; the plain one of first rotations and of all."""
        questions = by_question(scored)
        values = {
            "accuracy": float(questions["score"].mean()),
            "first_rotation_accuracy": float(questions["base"].mean()),
            "every_rotation_accuracy": float(scored["score"].mean()),
            "unparsed_rate": unparsed_rate(scored),
        }
        for label in LABELS:
            values |= by_label(questions, label)
        return values
