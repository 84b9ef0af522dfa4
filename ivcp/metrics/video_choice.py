"""Multiple choice about clips: read strictly, or as each benchmark's code in VLMEvalKit reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from string import ascii_uppercase

import pandas as pd

from ivcp.core.metric import ToBox, by_label
from ivcp.core.types import Sample
from ivcp.metrics.compat import Compat
from ivcp.metrics.multiple_choice import MultipleChoiceMetrics, lettered, read_letter

NAMED = re.compile(r"\b(?:option|caption|sentence)\s+([a-d1-4])\b", re.IGNORECASE)
"""How TempCompass names the captions among which one is to be chosen."""

CAPTIONS = "caption_matching"
"""The label "task_type" of questions of TempCompass about captions."""

PREFIXES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option isThe correct option is", "Best answer:Best option:", "Answer:", "Option:",
)  # fmt: skip
"""Removed from replies by VLMEvalKit, in whose list two commas are missing."""


def first_capital(prediction: str, sample: Sample) -> str | None:
    """Video-MME and LongVideoBench: the first capital letter A to D (E) anywhere.

    >>> sample = Sample(id="1", task="multiple_choice", images=(), question="?", answer="A")
    >>> first_capital("Because it is red, (A).", sample), first_capital("left", sample)
    ('B', None)
    """
    text = prediction.strip()
    for prefix in PREFIXES:
        text = text.replace(prefix, "")
    letters = "[ABCDE]" if sample.benchmark == "LongVideoBench" else "[ABCD]"
    if match := re.search(letters, text):
        return match[0]
    return read_letter(prediction, sample.options)


def first_word(prediction: str, sample: Sample) -> str | None:
    """MVBench: right if the first word is a part of "(a)", as the empty text is, or has it.

    >>> sample = Sample(id="1", task="multiple_choice", images=(), question="?", answer="A")
    >>> [first_word(text, sample) for text in ("", "(", "(A)", "a dog")]
    ['A', 'A', 'A', 'A']
    """
    word, right = prediction.lower().split(" ")[0], f"({str(sample.answer).lower()})"
    if word.replace(".", "") in right or right in word:
        return str(sample.answer)
    return read_letter(prediction, sample.options)


def before_bracket(prediction: str, sample: Sample) -> str | None:
    """MLVU: the character before the first closing bracket, or the whole reply, is the letter.

    >>> sample = Sample(id="1", task="multiple_choice", images=(), question="?", answer="A")
    >>> before_bracket("(A) or (B)", sample), before_bracket("A", sample)
    ('A', 'A')
    """
    index = prediction.find(")")
    letter = prediction if index < 0 else prediction[max(index - 1, 0) : index]
    return letter if letter == sample.answer else read_letter(prediction, sample.options)


def at_beginning(prediction: str, sample: Sample) -> str | None:
    """TempCompass: a letter alone, or at the beginning with "." or ")"; captions by their names.

    >>> sample = Sample(id="1", task="multiple_choice", images=(), question="?", answer="A",
    ...     options=("up", "down"))
    >>> [at_beginning(text, sample) for text in ("B", "B) down", "(B)", "down")]
    ['B', 'B', None, None]
    """
    if sample.labels.get("task_type") == CAPTIONS:
        return caption_by_name(prediction, sample.options)
    letter = prediction[:1]
    named = prediction[1:2] in ("", ".", ")") and letter in lettered(sample.options)
    return letter if named else None


def caption_by_name(prediction: str, lines: Sequence[str]) -> str | None:
    """The letter of the caption whose line, text or name ("Option 1", "1") a reply is.

    >>> lines = ("Option 1: it falls", "Option 2: it rises")
    >>> [caption_by_name(text, lines) for text in ("Option 2", "it falls", "1.", "It is 1")]
    ['B', 'A', 'A', None]
    """
    behind = prediction.split(") ")[1] if ") " in prediction else prediction
    for letter, line in zip(ascii_uppercase, lines, strict=False):
        name, _, text = line.partition(": ")
        short = re.sub("Sentence |Option |Caption ", "", name)
        names = {prediction, prediction.replace(".", "")}
        if prediction == line or text in (prediction, behind) or {name, short} & names:
            return letter
    return None


RULES: dict[str, Callable[[str, Sample], str | None]] = {
    "Video-MME": first_capital,
    "LongVideoBench": first_capital,
    "MVBench": first_word,
    "MLVU_MCQ": before_bracket,
    "TempCompass_MCQ": at_beginning,
}
"""VLMEvalKit's rules by benchmark, without a judge."""


def read_caption(prediction: str, sample: Sample) -> str | None:
    """The letter of a caption that has a name of its own ("Option 1: ...").

    >>> sample = Sample(id="1", task="multiple_choice", images=(), question="?", answer="A",
    ...     options=("Option 1: it falls", "Option 2: it rises"))
    >>> [read_caption(text, sample) for text in ("2", "Option 2: it rises", "B", "it falls", "?")]
    ['B', 'B', 'B', 'A', None]
    """

    def letter(name: str) -> str:
        return ascii_uppercase[int(name) - 1] if name.isdigit() else name.upper()

    alone = prediction.strip(" .()")
    if alone in ("1", "2", "3", "4"):
        return letter(alone)
    texts = [line.partition(": ")[2] for line in sample.options]
    named = {letter(match[1]) for match in NAMED.finditer(prediction)}
    if len(named) == 1 and (name := named.pop()) in ascii_uppercase[: len(texts)]:
        return name
    return read_letter(prediction, texts, "strict")


class VideoChoiceMetrics(MultipleChoiceMetrics):
    """Accuracy and unparsed rate of option letters, by the labels of video benchmarks.

    Args:
        compat: "strict" reads replies as those to questions about images, where the article "a" is
            no letter; "vlmevalkit" as the benchmark's own code there, whose mistakes the functions
            of `RULES` show, and "release" likewise.
        macro: A label; the mean of the accuracies of its values is `macro_accuracy`.

    Raises:
        UserError: `compat` is something else.
    """

    labels = (
        "duration", "domain", "sub_category", "task_type", "duration_group", "question_category",
        "topic_category", "dim",
    )  # fmt: skip

    def __init__(self, compat: Compat = "strict", macro: str | None = None) -> None:
        super().__init__(compat)
        self.macro = macro

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> str | None:
        """A capital letter or None."""
        if self.compat != "strict" and (rule := RULES.get(sample.benchmark)):
            return rule(self.text(prediction), sample)
        if sample.labels.get("task_type") == CAPTIONS:
            return read_caption(prediction, sample)
        return super().read(prediction, sample, to_box)

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`accuracy`, `macro_accuracy` if there is one, `unparsed_rate`, accuracy by label."""
        values = dict(super().summarize(scored))
        if self.macro is None:
            return values
        parts = by_label(scored, self.macro).values()
        accuracy = {"accuracy": values.pop("accuracy")}
        macro = {"macro_accuracy": fmean(parts) if parts else float("nan")}
        return accuracy | macro | values
