"""The contract of a metric: read a model's answers, score them, summarise a set of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from ivcp.core.types import IMAGE_ID, Answer, Box, Sample, Task

ToBox: TypeAlias = Callable[[str], Box | None]
"""Reads the first box of a text, in pixels of the original image; None if there is none."""

Statistics: TypeAlias = npt.NDArray[np.float64]
RIGHT = 0.5
"""Score from which an answer counts as right where a yes or no is needed, as in McNemar's test."""

METRICS = "ivcp.metrics"
"""The package of the metrics, and the group of entry points under which others name theirs."""


@dataclass(frozen=True)
class ScoredAnswer:
    """One answer with its score.

    Attributes:
        parsed: What was read from the model's text; None if nothing could be.
        answer: Ground truth; None if the sample could not be read at all.
        score: How right the answer is, in [0, 1].
        labels: The sample's.
    """

    parsed: Answer | None
    answer: Answer | None
    score: float
    labels: Mapping[str, str] = field(default_factory=dict)


class AnswerMetric(ABC):
    """Base of all metrics; a dataset's configuration names the one that scores it.

    An answer that cannot be read is None: it counts as wrong, stays in every denominator, and shows
    in the value `unparsed_rate`. A metric holds no state: the process that has all answers
    summarises them. Subclasses can be built without arguments.

    Attributes:
        primary_metric: Key of the value that stands for a run in tables and plots.
        highest: Greatest value of the primary metric: 1 for a fraction, else points.
        judged_by: "rule"; or "model", where rules are only a stand-in for a judging model.
        scored_tasks: Tasks whose answers it can score; empty for any.
    """

    primary_metric: ClassVar[str]
    highest: ClassVar[float] = 1.0
    judged_by: ClassVar[Literal["rule", "model"]] = "rule"
    scored_tasks: ClassVar[tuple[Task, ...]] = ()

    @abstractmethod
    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> Answer | None:
        """What the text answers; None if it answers nothing that can be scored.

        Args:
            prediction: The model's text.
            sample: The question, with its options.
            to_box: Reader of boxes, given by the model family and the sample's frame.
        """

    @abstractmethod
    def score(self, parsed: Answer | None, sample: Sample) -> float:
        """How right one answer is, in [0, 1]; 0 for None."""

    @abstractmethod
    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """The values of a dataset; NaN where undefined, e.g. the mean of no samples.

        Fractions in [0, 1], unless `unit` says otherwise. A break-down is named
        "label/value of the label" ("category/landmark"); tables on screen leave it out.

        Args:
            scored: One row a sample: `parsed`, `answer`, `score`, and a text column for each
                label, missing where a sample has none. A tuple is a list here.
        """

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        """What each bootstrap unit adds to the sums that the primary metric is made of.

        Confidence intervals come from resampling the rows. Answers about one image depend on each
        other, so a unit is an image, unless answers count together otherwise (MME, HallusionBench).

        Returns:
            One row a unit, in an order that depends on the samples alone.
        """
        return count_by_image(scored["score"], scored)

    def primary_value(self, sums: Statistics) -> Statistics:
        """(...) primary metric from (..., columns of `sufficient_statistics`) sums."""
        return divided(sums[..., 0], sums[..., 1])

    def right(self, scored: pd.DataFrame) -> pd.Series[bool]:
        """Whether each answer (or question, where answers count together) is right."""
        return scored["score"] >= RIGHT

    def judge_prompt(self, prediction: str, parsed: Answer | None, sample: Sample) -> str | None:
        """The prompt for a judging model; None where the rule's score stands.

        Args:
            prediction: The model's text.
            parsed: What the rule read from it.
            sample: The question, without its images.
        """
        return None

    def parse_judge_reply(self, reply: str, sample: Sample) -> tuple[Answer | None, float] | None:
        """What was parsed and its score, from a judging model's reply; None if it has neither."""
        raise NotImplementedError("This metric has no prompt for a judge.")

    def notes(self, scored: pd.DataFrame) -> Sequence[str]:
        """What a reader of the values must know, in sentences."""
        return ()

    def unit(self, name: str) -> Literal["%", ""]:
        """Of a value: "%" for a fraction, "" for points."""
        return "%"

    def values(self, answers: Iterable[ScoredAnswer]) -> dict[str, float]:
        """`summarize` of answers."""
        return dict(self.summarize(to_frame(answers)))


def divided(numerator: Statistics, denominator: Statistics) -> Statistics:
    """The quotient; NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Statistics = np.where(denominator == 0, np.nan, numerator / denominator)
    return quotient


def count_by_image(scores: pd.Series[Any], scored: pd.DataFrame) -> pd.DataFrame:
    """Scores and numbers of answers of each image.

    Args:
        scores: One an answer, numbers or truth values.
        scored: As in `sum_by_image`.
    """
    counts = pd.DataFrame({"score": scores.to_numpy(dtype=float), "samples": 1.0})
    return sum_by_image(counts, scored)


def sum_by_image(statistics: pd.DataFrame, scored: pd.DataFrame) -> pd.DataFrame:
    """One row an image, in order of appearance; an answer without an image's label stays alone.

    Args:
        statistics: One row an answer.
        scored: The answers with their labels.

    >>> scored = pd.DataFrame({"image_id": ["a", None, "a", None]})
    >>> sum_by_image(pd.DataFrame({"score": [1.0, 2.0, 4.0, 8.0]}), scored)["score"].tolist()
    [5.0, 2.0, 8.0]
    """
    labels = scored.get(IMAGE_ID, pd.Series(index=scored.index, dtype=object))
    images = pd.factorize(labels)[0]
    images = np.where(images < 0, len(images) + np.arange(len(images)), images)
    return statistics.groupby(images, sort=False).sum()


def class_path(metric: AnswerMetric) -> str:
    """Where `find_metric` finds the metric's class."""
    return f"{type(metric).__module__}.{type(metric).__qualname__}"


@cache
def _modules() -> frozenset[str]:
    """The modules of `ivcp.metrics`."""
    package = import_module(METRICS)
    return frozenset(f"{METRICS}.{entry.name}" for entry in iter_modules(package.__path__))


def find_metric(path: str) -> AnswerMetric:
    """A new metric of a class that a finished run names; nothing else is imported or called.

    Args:
        path: Dotted path of a class of `ivcp.metrics`, or of one that another package names as an
            entry point of the group `ivcp.metrics`.

    Raises:
        LookupError: There is no such metric here.
    """
    module, _, name = path.rpartition(".")
    modules = _modules()
    if module not in modules:  # listing the entry points of all packages takes 30 ms
        modules = frozenset(
            point.module for point in entry_points(group=METRICS) if point.attr == name
        )
    kind = getattr(import_module(module), name, None) if module in modules else None
    if not (isinstance(kind, type) and issubclass(kind, AnswerMetric)):
        raise LookupError(f"{path} is no metric of ivcp.metrics, nor an entry point of that group.")
    try:
        return kind()
    except TypeError as error:
        raise LookupError(f"The metric {path} cannot be made without arguments.") from error


def to_frame(answers: Iterable[ScoredAnswer]) -> pd.DataFrame:
    """Answers as `AnswerMetric.summarize` takes them."""
    rows: list[dict[str, Any]] = [
        {**scored.labels, "parsed": scored.parsed, "answer": scored.answer, "score": scored.score}
        for scored in answers
    ]
    columns = list(
        dict.fromkeys(["parsed", "answer", "score", *(key for row in rows for key in row)])
    )
    values = np.empty((len(rows), len(columns)), dtype=object)
    for column, name in enumerate(columns):  # as one block: a series a column takes longer
        values[:, column] = np.fromiter((row.get(name) for row in rows), object, len(rows))
    frame = pd.DataFrame(values, columns=columns, dtype=object, copy=False)
    frame["score"] = frame["score"].astype(float)
    return frame


def by_label(scored: pd.DataFrame, label: str, column: str = "score") -> dict[str, float]:
    """Mean of a column for each value of a label, in alphabetical order, as "label/value"."""
    if label not in scored:
        return {}
    means = scored.groupby(label)[column].mean()
    return {f"{label}/{value}": float(mean) for value, mean in means.items()}


def unparsed_rate(scored: pd.DataFrame) -> float:
    """Fraction of answers from which nothing could be read."""
    return float(scored["parsed"].isna().mean())
