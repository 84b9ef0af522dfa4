"""Options of multiple-choice questions, as annotations of video benchmarks have them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from ivcp.core.errors import UserError
from ivcp.datasets.annotation_values import brief

LETTERED = re.compile(r"^[A-Z][.)] ?")
"""The beginning of an option that is published with its letter."""


def read_options(values: Any, where: str) -> tuple[str, ...]:
    """The options of a question: a list of texts, or of numbers.

    Raises:
        UserError: They are something else.
    """
    several = isinstance(values, list | tuple) and len(values) > 1
    if not several or not all(isinstance(value, str | int | float) for value in values):
        raise UserError(f"Expected a list of options in {where}; got {brief(values)}.")
    return tuple(map(str, values))


def letter_of(answer: object, options: Sequence[str], where: str) -> str:
    """The letter of the option that is the answer.

    >>> letter_of("cat", ["dog", "cat"], "row 3")
    'B'

    Raises:
        UserError: It is none of them.
    """
    if str(answer) not in options:
        raise UserError(
            f"Expected one of the options {brief(list(options))} as answer in {where}; got "
            f"{brief(answer)}."
        )
    return ascii_uppercase[options.index(str(answer))]


def in_brackets(question: str, options: Sequence[str]) -> str:
    r"""A question as MVBench and MLVU are worded by VLMEvalKit.

    >>> in_brackets("Which?", ["cat", "dog"])
    'Question: Which?\nOptions:\n(A) cat\n(B) dog'
    """
    lines = [f"({letter}) {text}" for letter, text in zip(ascii_uppercase, options, strict=False)]
    return "\n".join([f"Question: {question}", "Options:", *lines])
