"""Answers of models that think before they answer."""

from __future__ import annotations

import re

START, END = "<think>", "</think>"


def final_answer(text: str) -> str:
    """The answer that follows the thoughts, without `<answer>` tags.

    An answer that ends while the model still thinks is empty, so that no metric scores a thought.

    >>> final_answer("<think>A? No, B.</think><answer>B</answer>"), final_answer("<think>A? No, ")
    ('B', '')
    >>> final_answer("No thoughts.")
    'No thoughts.'
    """
    _, end, answer = text.rpartition(END)
    if not end and START in text:
        return ""
    return re.sub(r"</?answer>", "", answer).strip()
