"""Boxes: intersection over union, accuracy at thresholds, centre accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ivcp.core.metric import Answer, AnswerMetric, ToBox
from ivcp.core.types import Box, Sample

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


def sort_corners(box: Box) -> Box:
    """The same region with `x1 <= x2` and `y1 <= y2`; any two opposite corners name it.

    >>> sort_corners((4, 1, 2, 3))
    (2, 1, 4, 3)
    """
    x1, y1, x2, y2 = box
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def box_iou(predicted: Box | None, truth: Box) -> float:
    """Intersection over union in [0, 1] of two boxes in one frame; 0 for None.

    Sides are `x2 - x1`, without the + 1 of integer pixels. Two boxes without area have IoU 0.

    >>> box_iou((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    if predicted is None:
        return 0.0
    a, b = sort_corners(predicted), sort_corners(truth)
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    overlap = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union > 0 else 0.0


def center_inside(predicted: Box | None, truth: Box) -> bool:
    """Whether the centre of the predicted box lies in the true box or on its border.

    >>> center_inside((0, 0, 2, 2), (1, 1, 5, 5)), center_inside((0, 0, 2, 2), (1.1, 1, 5, 5))
    (True, False)
    """
    if predicted is None:
        return False
    x, y = (predicted[0] + predicted[2]) / 2, (predicted[1] + predicted[3]) / 2
    x1, y1, x2, y2 = sort_corners(truth)
    return x1 <= x <= x2 and y1 <= y <= y2


def as_box(answer: Answer) -> Box:
    """The answer as a box.

    Raises:
        TypeError: The answer is a text.
    """
    if isinstance(answer, str):
        raise TypeError(f"Expected a box of four numbers as answer, but got {answer!r}.")
    return answer


class GroundingMetrics(AnswerMetric):
    """Accuracy at IoU thresholds (`>=`), mean IoU, centre accuracy and unparsed rate.

    Boxes are in pixels of the original image; None counts as IoU 0.
    """

    headline = "acc@0.5"

    hits: Tensor
    iou_sum: Tensor
    centers: Tensor
    unparsed: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("hits", torch.zeros(len(THRESHOLDS), dtype=torch.long), "sum")
        self.add_state("iou_sum", torch.tensor(0.0, dtype=torch.float64), "sum")
        for name in ("centers", "unparsed", "total"):
            self.add_state(name, torch.tensor(0), "sum")

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> Box | None:
        """The first box of the text with finite coordinates, corners sorted."""
        box = to_box(prediction)
        if box is None or not all(math.isfinite(value) for value in box):
            return None
        return sort_corners(box)

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        """The IoU."""
        return box_iou(None if parsed is None else as_box(parsed), as_box(sample.answer))

    def update(self, parsed: Sequence[Answer | None], answers: Sequence[Answer]) -> None:
        """Count a batch of boxes."""
        for given, answer in zip(parsed, answers, strict=True):
            box, truth = None if given is None else as_box(given), as_box(answer)
            iou = box_iou(box, truth)
            reached = [iou >= threshold for threshold in THRESHOLDS]
            self.hits += torch.tensor(reached, device=self.hits.device)
            self.iou_sum += iou
            self.centers += center_inside(box, truth)
            self.unparsed += box is None
            self.total += 1

    def compute(self) -> dict[str, Tensor]:
        """`acc@0.1` ... `acc@0.9`, `mean_iou`, `center_acc`, `unparsed_rate`."""
        accuracy = {
            f"acc@{threshold}": self.hits[i] / self.total for i, threshold in enumerate(THRESHOLDS)
        }
        return accuracy | {
            "mean_iou": self.iou_sum / self.total,
            "center_acc": self.centers / self.total,
            "unparsed_rate": self.unparsed / self.total,
        }
