"""Multiple choice: which option's letter an answer means, and how often it is the right one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import ClassVar

import pandas as pd

from ivcp.core.metric import ToBox, by_label, unparsed_rate
from ivcp.core.types import Answer, Sample
from ivcp.metrics.compat import Compat, VlmEvalKitMetric

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
ARTICLE = re.compile(
    r"""
    ( \b (?=a) | (?: ^ | [.!?]\s ) [\s"'(]* (?=A) )  # a capital only where a sentence begins
    [aA]
    (?= [ ]+ [^\W\d_]{2} )                           # a word follows it, not a mark or the end,
    (?! [ ]+ (?: and | as | at | because | but | for | from | in | is | on | or | since | so | than
      | that | was | which | with | would ) \b )       # and a word that can follow an article
    """,
    re.VERBOSE,
)
LABELS = ("split", "l2-category", "category", "source")


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Letter and text of each option; an empty text is no option.

    >>> lettered(["left", "", "right"])
    {'A': 'left', 'C': 'right'}
    """
    return {letter: text for letter, text in zip(ascii_uppercase, options, strict=False) if text}


def read_letter(
    prediction: str, options: Sequence[str], compat: Compat = "vlmevalkit"
) -> str | None:
    """The letter of the option that a text means; None if it is not clear.

    In this order: a refusal means nothing; a capital letter of exactly one option among the last
    four words; the letter X in "answer is X"; the text of exactly one option, in a reply not longer
    than twice all options together. Agrees with `can_infer` of current VLMEvalKit, which gives "Z"
    or False for None. In the release the letter may stand anywhere, the reply may be of any length,
    and "answer is X" means nothing. Both may take the article "a" for the letter A, as in "The
    answer is a blue car."; "strict" does not, else it is "vlmevalkit".

    Args:
        prediction: The model's text.
        options: Texts of the options A, B, C, ...; an empty one is no option.
        compat: Whose rules.

    >>> options = ("teddy bear", "rabbit", "cat")
    >>> [read_letter(text, options) for text in ("(B)", "a cute teddy bear", "A or B", "b")]
    ['B', 'A', None, None]
    >>> [read_letter("The answer is a cat.", options, rule) for rule in ("vlmevalkit", "strict")]
    ['A', 'C']
    """
    if any(refusal in prediction for refusal in REFUSALS):
        return None
    current = compat != "release"
    choices = lettered(options)
    if FAILED_CALL not in prediction:
        reply = ARTICLE.sub(r"\1the", prediction) if compat == "strict" else prediction
        words = reply.translate(MARKS).split()
        named = [letter for letter in choices if letter in words]
        last = not current or (named and words.index(named[0]) >= len(words) - LAST_WORDS)
        if len(named) == 1 and last:
            return named[0]
        if not named and "Z" in words:
            return None
        if current and (match := STATEMENT.search(reply)) and match[1].upper() in choices:
            return match[1].upper()
    long = len(prediction) > 2 * sum(len(text) for text in choices.values())
    if current and long:
        return None
    quoted = [letter for letter, text in choices.items() if text.lower() in prediction.lower()]
    return quoted[0] if len(quoted) == 1 else None


class MultipleChoiceMetrics(VlmEvalKitMetric):
    """Accuracy and unparsed rate of option letters, also by split, category and source.

    Attributes:
        labels: Labels by which the accuracy is broken down.
    """

    primary_metric = "accuracy"
    scored_tasks = ("multiple_choice",)
    labels: ClassVar[tuple[str, ...]] = LABELS

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> str | None:
        """A capital letter or None."""
        return read_letter(self.text(prediction), sample.options, self.compat)

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        """1 if right, else 0."""
        return float(parsed == sample.answer)

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`accuracy`, `unparsed_rate`, and the accuracy by label."""
        values = {"accuracy": float(scored["score"].mean())}
        values["unparsed_rate"] = unparsed_rate(scored)
        for label in self.labels:
            values |= by_label(scored, label)
        return values

    def judge_prompt(self, prediction: str, parsed: Answer | None, sample: Sample) -> str | None:
        """A prompt for replies in which the rule does not find an option."""
        if parsed is not None:
            return None
        choices = lettered(sample.options).items()
        options = "\n".join(f"{letter}. {text}" for letter, text in choices)
        return (
            "Somebody was asked a multiple-choice question. Say which option the reply means: "
            "write its letter alone, or Z if the reply means none of them or several.\n"
            f"Question: {sample.question}\nOptions:\n{options}\nReply: {prediction}\nLetter:"
        )

    def parse_judge_reply(self, reply: str, sample: Sample) -> tuple[Answer | None, float] | None:
        words = reply.translate(MARKS).split()
        if words == ["Z"]:
            return None, 0.0
        if len(words) != 1 or words[0] not in lettered(sample.options):
            return None
        return words[0], self.score(words[0], sample)
