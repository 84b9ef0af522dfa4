"""Yes or no: reading the word, accuracy, and precision, recall and F1 of "Yes"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ivcp.core.metric import Answer, AnswerMetric, ToBox
from ivcp.core.types import Sample

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")


def strip_punctuation(text: str) -> str:
    """Text with its punctuation deleted or turned into spaces.

    A mark that touches a space anywhere in the text is deleted throughout it, any other mark
    becomes a space; a comma between digits has every mark deleted. Asterisks, colons and quotation
    marks of other kinds stay. The rule is that of VLMEvalKit (from the VQA evaluation code).

    >>> strip_punctuation("yes,it is."), strip_punctuation("yes, it is.")
    ('yes it is', 'yes it is')
    """
    digits = DIGIT_COMMA.search(text) is not None
    result = text
    for mark in PUNCTUATION:
        delete = digits or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if delete else " ")
    return PERIOD.sub("", result)


def read_yes_no(prediction: str) -> Literal["Yes", "No"] | None:
    """The one of the words "yes" and "no" that a text holds; None if it holds both or neither.

    Agrees with `YOrN_Extraction` of VLMEvalKit, which says "Unknown" for None.

    >>> read_yes_no("Yes, there is."), read_yes_no("no"), read_yes_no("yes and no")
    ('Yes', 'No', None)
    """
    words = strip_punctuation(prediction.lower()).split()
    yes, no = "yes" in words, "no" in words
    if yes == no:
        return None
    return "Yes" if yes else "No"


class YesNoMetrics(AnswerMetric):
    """Accuracy, and precision, recall and F1 of the positive class "Yes", as POPE reports them.

    An unread answer is wrong in the accuracy and acts as "No" in the other three. A value whose
    denominator is 0 (no answer was "Yes") is 0.
    """

    headline = "f1"

    correct: Tensor
    true_yes: Tensor
    predicted_yes: Tensor
    actual_yes: Tensor
    unparsed: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("correct", "true_yes", "predicted_yes", "actual_yes", "unparsed", "total"):
            self.add_state(name, torch.tensor(0), "sum")

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> Literal["Yes", "No"] | None:
        """The word yes or no, capitalised, or None."""
        return read_yes_no(prediction)

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        """1 if right, else 0."""
        return float(parsed == sample.answer)

    def update(self, parsed: Sequence[Answer | None], answers: Sequence[Answer]) -> None:
        """Count a batch; the ground truth is "Yes" or "No".

        Raises:
            ValueError: A ground truth is something else.
        """
        for given, answer in zip(parsed, answers, strict=True):
            if answer not in ("Yes", "No"):
                raise ValueError(f"Expected the answer to be 'Yes' or 'No', but got {answer!r}.")
            self.correct += given == answer
            self.true_yes += given == answer == "Yes"
            self.predicted_yes += given == "Yes"
            self.actual_yes += answer == "Yes"
            self.unparsed += given is None
            self.total += 1

    def compute(self) -> dict[str, Tensor]:
        """`accuracy`, `precision`, `recall`, `f1`, `unparsed_rate`."""

        def of_yes(count: Tensor, out_of: Tensor) -> Tensor:
            nothing_seen = self.total == 0
            return torch.where(nothing_seen, torch.nan, count / out_of.clamp(min=1))

        return {
            "accuracy": self.correct / self.total,
            "precision": of_yes(self.true_yes, self.predicted_yes),
            "recall": of_yes(self.true_yes, self.actual_yes),
            "f1": of_yes(2 * self.true_yes, self.predicted_yes + self.actual_yes),
            "unparsed_rate": self.unparsed / self.total,
        }
