"""MM-Vet: long answers that a language model is to grade."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from ivcp.core.types import Answer, Sample
from ivcp.metrics.compat import texts
from ivcp.metrics.open_ended import OpenEndedMetrics, empty_rate
from ivcp.metrics.pope import categories

NUMBER = re.compile(r"[\d.]+")
GRADE = re.compile(r"(0(?:\.\d+)?|1(?:\.0+)?)\.*")
TASK = """\
Grade an answer to a question about a picture that you don't see. You are given the question, what \
a right answer holds, and the answer. Parts joined by <AND> must all be in the answer: grade what \
fraction of them is. Of parts joined by <OR> one is enough. Wording, length and additions don't \
matter, unless they contradict. Write one number: 0.0 (wrong), 0.1, 0.2, ... or 1.0 (right).

Question: What are the roots? | Right: 2 <AND> -3 | Answer: x = 2 | Grade: 0.5
Question: What are the roots? | Right: 2 <AND> -3 | Answer: They are -3 and 2. | Grade: 1.0
Question: Which animal is it? | Right: hare <OR> rabbit | Answer: A rabbit in the grass | Grade: 1.0
Question: Which animal is it? | Right: hare <OR> rabbit | Answer: A small dog | Grade: 0.0
"""


def holds(reply: str, wanted: str) -> bool:
    """Whether a reply has a part on each side of every <AND>, parts of an <OR> being alternatives.

    >>> holds("x is -5 or -1", "-1 <AND> -5"), holds("a cat", "hare <OR> rabbit")
    (True, False)
    """
    text = " ".join(reply.lower().split())
    return all(
        any(" ".join(part.lower().split()) in text for part in group.split("<OR>"))
        for group in wanted.split("<AND>")
    )


class MmVetMetrics(OpenEndedMetrics):
    """Mean grade, also by capability, which the label "category" lists.

    Without a judge the grade is 1 if the wanted parts stand in the reply word for word, else 0. The
    judge's prompt is this project's, so even its grades compare with published ones only roughly.
    """

    primary_metric = "grade"
    judged_by = "model"

    def compare(self, reply: str, accepted: Sequence[str]) -> float:
        return float(any(holds(reply, text) for text in accepted))

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`grade`, `unparsed_rate`, and the mean grade of each capability's questions."""
        values = {"grade": float(scored["score"].mean()), "unparsed_rate": empty_rate(scored)}
        names = categories(scored)
        for name, rows in names.groupby(names):
            values[f"capability/{name}"] = float(scored["score"].loc[rows.index].mean())
        return values

    def judge_prompt(self, prediction: str, parsed: Answer | None, sample: Sample) -> str | None:
        """A prompt for every answer that is not blank."""
        if not prediction.strip():
            return None
        parts = (sample.question, " <OR> ".join(texts(sample.answer)), prediction)
        question, right, answer = (" ".join(text.split()) for text in parts)
        return f"{TASK}Question: {question} | Right: {right} | Answer: {answer} | Grade:"

    def parse_judge_reply(self, reply: str, sample: Sample) -> tuple[Answer | None, float] | None:
        """The only number from 0 to 1 of the reply; `parsed` is its text."""
        matches = [GRADE.fullmatch(number) for number in NUMBER.findall(reply)]
        grades = [match[1] for match in matches if match]
        return (grades[0], float(grades[0])) if len(grades) == 1 else None
