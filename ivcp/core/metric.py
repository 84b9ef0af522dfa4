"""The contract of a metric: read a model's answers, judge them, sum up over all processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

from torch import Tensor
from torchmetrics import Metric

from ivcp.core.types import Box, Sample

Answer: TypeAlias = str | Box
"""A ground truth, or what was read from a model's text; goes into JSON as it is."""

ToBox: TypeAlias = Callable[[str], Box | None]
"""Reads the first box of a text, in pixels of the original image; None if there is none."""


class AnswerMetric(Metric, ABC):
    """Base of all metrics; a dataset's configuration names the one that judges it.

    An answer that cannot be read is None: it counts as wrong, stays in every denominator, and shows
    in the value `unparsed_rate`. Subclasses are built without arguments and declare a reduction for
    each state, so that several processes give the result of one.

    Attributes:
        headline: Key of the value that stands for a run in tables and plots.
    """

    headline: ClassVar[str]
    is_differentiable = False
    higher_is_better = True
    full_state_update = False

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
    def update(self, parsed: Sequence[Answer | None], answers: Sequence[Answer]) -> None:
        """Count a batch.

        Args:
            parsed: What `read` gave for each sample.
            answers: Ground truth of each sample.
        """

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Values over all samples and processes, scalars in [0, 1]; NaN before the first sample."""
