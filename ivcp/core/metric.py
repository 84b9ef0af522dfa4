"""The contract of a metric: read a model's answers, judge them, sum up over all processes."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ivcp.core.types import Answer, Box, Sample

ToBox: TypeAlias = Callable[[str], Box | None]
"""Reads the first box of a text, in pixels of the original image; None if there is none."""

Sums: TypeAlias = npt.NDArray[np.float64]
RIGHT = 0.5
"""Score from which an answer counts as right where a yes or no is needed, as in McNemar's test."""


@dataclass(frozen=True)
class Judged:
    """One answer with its verdict.

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


class AnswerMetric(Metric, ABC):
    """Base of all metrics; a dataset's configuration names the one that judges it.

    An answer that cannot be read is None: it counts as wrong, stays in every denominator, and shows
    in the value `unparsed_rate`. Every verdict is kept, so that processes can be joined and any
    break-down computed. Subclasses can be built without arguments.

    Attributes:
        headline: Key of the value that stands for a run in tables and plots.
        highest: Greatest value of the headline: 1 for a fraction, else points.
        judged_by: "rule"; or "model", where rules are only a stand-in for a judging model.
    """

    headline: ClassVar[str]
    highest: ClassVar[float] = 1.0
    judged_by: ClassVar[Literal["rule", "model"]] = "rule"
    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    verdicts: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("verdicts", [], dist_reduce_fx="cat")  # (N,) bytes of JSON lines

    @abstractmethod
    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> Answer | None:
        """What the text answers; None if it answers nothing that can be judged.

        Args:
            prediction: The model's text.
            sample: The question, with its options.
            to_box: Reader of boxes, given by the model family and the sample's frame.
        """

    @abstractmethod
    def score(self, parsed: Answer | None, sample: Sample) -> float:
        """How right one answer is, in [0, 1]; 0 for None."""

    @abstractmethod
    def summarize(self, verdicts: pd.DataFrame) -> Mapping[str, float]:
        """The values of a whole set; NaN for what has no meaning, as all of nothing.

        Fractions in [0, 1], unless `unit` says otherwise. A break-down is named
        "label/value of the label" ("category/landmark"); tables on screen leave it out.

        Args:
            verdicts: One row a sample: `parsed`, `answer`, `score`, and a text column for each
                label, missing where a sample has none. A tuple is a list here.
        """

    def tallies(self, verdicts: pd.DataFrame) -> pd.DataFrame:
        """What each independent unit of a set adds to the sums that the headline is made of.

        Resampling its rows is how a confidence interval is had. A unit is a sample, unless answers
        count together (the rotations of a question, the questions about an image).

        Returns:
            One row a unit, in an order that depends on the samples alone.
        """
        return pd.DataFrame({"score": verdicts["score"].astype(float), "samples": 1.0})

    def headline_of(self, sums: Sums) -> Sums:
        """The headline, (...), from (..., columns of `tallies`) sums; NaN of nothing."""
        return divided(sums[..., 0], sums[..., 1])

    def right(self, verdicts: pd.DataFrame) -> pd.Series[bool]:
        """Whether each thing that can be right or wrong is right; the scores' half decides."""
        return verdicts["score"] >= RIGHT

    def to_judge(self, prediction: str, parsed: Answer | None, sample: Sample) -> str | None:
        """What to ask a judging model about an answer; None where the rule's verdict stands.

        Args:
            prediction: The model's text.
            parsed: What the rule read from it.
            sample: The question, without its images.
        """
        return None

    def hear(self, reply: str, sample: Sample) -> tuple[Answer | None, float] | None:
        """What was parsed and its score, from a judging model's reply; None if it tells nothing."""
        raise NotImplementedError("This metric asks no judge.")

    def notes(self, verdicts: pd.DataFrame) -> Sequence[str]:
        """What a reader of the values must know, in sentences."""
        return ()

    def unit(self, name: str) -> Literal["%", ""]:
        """Of a value: "%" for a fraction, "" for points."""
        return "%"

    def update(self, judged: Sequence[Judged]) -> None:
        """Take a batch of verdicts."""
        lines = "".join(json.dumps(_row(item)) + "\n" for item in judged)
        if lines:
            data = torch.frombuffer(bytearray(lines.encode()), dtype=torch.uint8)
            self.verdicts.append(data.to(self.device))

    def frame(self) -> pd.DataFrame:
        """The verdicts of all samples and processes, as `summarize` gets them."""
        told = len(self.verdicts)
        return table(dim_zero_cat(self.verdicts).cpu().numpy().tobytes() if told else b"")

    def compute(self) -> dict[str, Tensor]:
        """`summarize` over all samples and processes, as scalars in double precision."""
        values = self.summarize(self.frame())
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def divided(part: Sums, whole: Sums) -> Sums:
    """`part / whole`; NaN where the whole is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: Sums = np.where(whole == 0, np.nan, part / whole)
    return quotient


def class_path(metric: AnswerMetric) -> str:
    """Where `find_metric` finds the metric's class."""
    return f"{type(metric).__module__}.{type(metric).__qualname__}"


def find_metric(path: str) -> AnswerMetric:
    """A new metric of a class that a finished run names.

    Raises:
        LookupError: The class is not to be had here.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise LookupError(f"The metric {path} cannot be made here ({error}).") from error
    if not isinstance(found, AnswerMetric):
        raise LookupError(f"{path} is no metric.")
    return found


def _row(item: Judged) -> dict[str, Any]:
    return {**item.labels, "parsed": item.parsed, "answer": item.answer, "score": item.score}


def table(lines: bytes) -> pd.DataFrame:
    """Verdicts as `summarize` gets them, from JSON lines."""
    rows = [json.loads(line) for line in lines.splitlines()]
    columns = dict.fromkeys(["parsed", "answer", "score", *(key for row in rows for key in row)])
    data = {name: [row.get(name) for row in rows] for name in columns}
    frame = pd.DataFrame({name: pd.Series(column, dtype=object) for name, column in data.items()})
    return frame.astype({"score": float})


def by_label(verdicts: pd.DataFrame, label: str, column: str = "score") -> dict[str, float]:
    """Mean of a column for each value of a label, in alphabetical order, as "label/value"."""
    if label not in verdicts:
        return {}
    means = verdicts.groupby(label)[column].mean()
    return {f"{label}/{value}": float(mean) for value, mean in means.items()}


def unparsed_rate(verdicts: pd.DataFrame) -> float:
    """Fraction of answers from which nothing could be read."""
    return float(verdicts["parsed"].isna().mean())
