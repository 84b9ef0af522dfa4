"""Yes or no: reading the word, accuracy, and precision, recall and F1 of "Yes"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from ivcp.core.metric import Statistics, ToBox, divided, sum_by_image, unparsed_rate
from ivcp.core.types import Answer, Sample
from ivcp.metrics.compat import Compat, VlmEvalKitMetric

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA = re.compile(r"\d,\d")
PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
RELEASE_PERIOD = re.compile(r"\.(?!\d)")
MOST_PERIODS = 32  # the original takes a flag for the number of periods to delete


def strip_punctuation(text: str, compat: Compat = "vlmevalkit") -> str:
    """Text with its punctuation deleted or turned into spaces.

    A mark that touches a space anywhere in the text is deleted throughout it, any other mark
    becomes a space; a comma between digits has every mark deleted. The first 32 periods with no
    digit around them go (before a digit is enough to stay in the release). Asterisks, colons and
    quotation marks of other kinds stay. The rule is that of VLMEvalKit, from the VQA evaluation.

    >>> strip_punctuation("yes,it is."), strip_punctuation("yes, it is.")
    ('yes it is', 'yes it is')
    """
    digits = DIGIT_COMMA.search(text) is not None
    result = text
    for mark in PUNCTUATION:
        delete = digits or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if delete else " ")
    period = RELEASE_PERIOD if compat == "release" else PERIOD
    return period.sub("", result, count=MOST_PERIODS)


def read_yes_no(prediction: str) -> Literal["Yes", "No"] | None:
    """The one of the words "yes" and "no" that a text holds; None if it holds both or neither.

    Agrees with `YOrN_Extraction` of VLMEvalKit, which gives "Unknown" for None.

    >>> read_yes_no("Yes, there is."), read_yes_no("no"), read_yes_no("yes and no")
    ('Yes', 'No', None)
    """
    words = strip_punctuation(prediction.lower()).split()
    yes, no = "yes" in words, "no" in words
    if yes == no:
        return None
    return "Yes" if yes else "No"


def f1_statistics(scored: pd.DataFrame) -> pd.DataFrame:
    """One row an answer: true positive, predicted positive, positive, right, and the count 1."""
    predicted, truth = scored["parsed"] == "Yes", scored["answer"] == "Yes"
    columns = {
        "true_positives": predicted & truth,
        "predicted_positives": predicted,
        "positives": truth,
        "right": scored["score"],
        "answers": 1.0,
    }
    return pd.DataFrame(columns, index=scored.index).astype(float)


def fraction(numerator: Statistics, denominator: Statistics, answers: Statistics) -> Statistics:
    """The quotient; 0 where the denominator is 0, NaN where there are no answers."""
    quotient: Statistics = numerator / np.where(denominator == 0, 1.0, denominator)
    return np.where(answers == 0, np.nan, quotient)


def f1(sums: Statistics) -> Statistics:
    """(...) F1 from (..., 5) sums of `f1_statistics`."""
    return fraction(2 * sums[..., 0], sums[..., 1] + sums[..., 2], sums[..., 4])


def rates(sums: Statistics) -> dict[str, float]:
    """Accuracy, precision, recall and F1 from (5,) sums of `f1_statistics`."""
    true_positives, predicted, positives, right, answers = sums
    values = {
        "accuracy": divided(right, answers),
        "precision": fraction(true_positives, predicted, answers),
        "recall": fraction(true_positives, positives, answers),
        "f1": f1(sums),
    }
    return {name: float(value) for name, value in values.items()}


class YesNoMetrics(VlmEvalKitMetric):
    """Accuracy, and precision, recall and F1 of the positive class "Yes", as POPE reports them.

    An unread answer is wrong in the accuracy and acts as "No" in the other three. A value whose
    denominator is 0 (no answer was "Yes") is 0.
    """

    primary_metric = "f1"
    scored_tasks = ("yes_no",)

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> Literal["Yes", "No"] | None:
        """The word yes or no, capitalised, or None."""
        return read_yes_no(self.text(prediction))

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        """1 if right, else 0.

        Raises:
            ValueError: The ground truth is not "Yes" or "No".
        """
        if sample.answer not in ("Yes", "No"):
            raise ValueError(f"Expected the answer to be 'Yes' or 'No', but got {sample.answer!r}.")
        return float(parsed == sample.answer)

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        return sum_by_image(f1_statistics(scored), scored)

    def primary_value(self, sums: Statistics) -> Statistics:
        return f1(sums)

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`accuracy`, `precision`, `recall`, `f1`, `unparsed_rate`."""
        sums = self.sufficient_statistics(scored).to_numpy().sum(0)
        return {**rates(sums), "unparsed_rate": unparsed_rate(scored)}

    def judge_prompt(self, prediction: str, parsed: Answer | None, sample: Sample) -> str | None:
        """A prompt for replies in which the rule does not find the word."""
        if parsed is not None:
            return None
        return (
            "Somebody was asked a question that can be answered with yes or no. Say what the reply "
            "means: write one word, Yes or No, or Unknown if it means neither.\n"
            f"Question: {sample.question}\nReply: {prediction}\nMeaning:"
        )

    def parse_judge_reply(self, reply: str, sample: Sample) -> tuple[Answer | None, float] | None:
        if (parsed := read_yes_no(reply)) is None:
            return (None, 0.0) if reply.strip(" .").lower() == "unknown" else None
        return parsed, self.score(parsed, sample)
