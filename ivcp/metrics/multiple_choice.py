"""Multiple choice: which option's letter an answer means, and how often it is the right one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

import torch
from torch import Tensor

from ivcp.core.metric import Answer, AnswerMetric, ToBox
from ivcp.core.types import Sample

FAILED_CALL = "Failed to obtain answer via API"
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
STATEMENT = re.compile(r"(?:correct )?answer is \**([A-D])\b", re.IGNORECASE)
LAST_WORDS = 4  # a letter further from the end is more likely the article "A"


def read_letter(prediction: str, options: Sequence[str]) -> str | None:
    """The letter of the option that a text means; None if it is not clear.

    In this order: a refusal means nothing; a capital letter of exactly one option among the last
    four words; the letter X in "answer is X"; the text of exactly one option, in a reply not longer
    than twice all options together. Agrees with `can_infer` of current VLMEvalKit, which says "Z"
    or False for None.

    Args:
        prediction: The model's text.
        options: Texts of the options A, B, C, ...

    >>> options = ("teddy bear", "rabbit", "cat")
    >>> [read_letter(text, options) for text in ("(B)", "a cute teddy bear", "A or B", "b")]
    ['B', 'A', None, None]
    """
    if any(refusal in prediction for refusal in REFUSALS):
        return None
    letters = ascii_uppercase[: len(options)]
    if FAILED_CALL not in prediction:
        words = prediction.translate(MARKS).split()
        named = [letter for letter in letters if letter in words]
        if len(named) == 1 and words.index(named[0]) >= len(words) - LAST_WORDS:
            return named[0]
        if not named and "Z" in words:
            return None
        if (match := STATEMENT.search(prediction)) and match[1].upper() in letters:
            return match[1].upper()
    return _read_text(prediction.lower(), [option.lower() for option in options])


def _read_text(prediction: str, options: Sequence[str]) -> str | None:
    """The letter of the only option whose text stands in a short reply."""
    if len(prediction) > 2 * sum(len(option) for option in options):
        return None
    found = [i for i, option in enumerate(options) if option in prediction]
    return ascii_uppercase[found[0]] if len(found) == 1 else None


class MultipleChoiceMetrics(AnswerMetric):
    """Accuracy and unparsed rate of option letters."""

    headline = "accuracy"

    correct: Tensor
    unparsed: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("correct", "unparsed", "total"):
            self.add_state(name, torch.tensor(0), "sum")

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> str | None:
        """A capital letter or None."""
        return read_letter(prediction, sample.options)

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        """1 if right, else 0."""
        return float(parsed == sample.answer)

    def update(self, parsed: Sequence[Answer | None], answers: Sequence[Answer]) -> None:
        """Count a batch of letters."""
        for given, answer in zip(parsed, answers, strict=True):
            self.correct += given == answer
            self.unparsed += given is None
            self.total += 1

    def compute(self) -> dict[str, Tensor]:
        """`accuracy`, `unparsed_rate`."""
        return {
            "accuracy": self.correct / self.total,
            "unparsed_rate": self.unparsed / self.total,
        }
