"""Boxes: intersection over union, accuracy at thresholds, centre accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from ivcp.core.metric import AnswerMetric, ToBox, count_by_image, unparsed_rate
from ivcp.core.types import BOX_BEYOND_IMAGE, Answer, Box, Sample

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


def as_box(answer: object) -> Box:
    """The answer as a box.

    Raises:
        TypeError: The answer is anything but four numbers.
    """
    if not isinstance(answer, tuple | list) or len(answer) != 4:
        raise TypeError(f"Expected a box of four numbers as answer, but got {answer!r}.")
    x1, y1, x2, y2 = (float(value) for value in answer)
    return x1, y1, x2, y2


class GroundingMetrics(AnswerMetric):
    """Accuracy at IoU thresholds (`>=`), mean IoU, centre accuracy and unparsed rate.

    Boxes are in pixels of the original image; None counts as IoU 0. The score is the IoU.
    """

    primary_metric = "acc@0.5"
    scored_tasks = ("grounding",)

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> Box | None:
        """The first box of the text with finite coordinates, corners sorted."""
        box = to_box(prediction)
        if box is None or not all(math.isfinite(value) for value in box):
            return None
        return sort_corners(box)

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        """The IoU."""
        return box_iou(None if parsed is None else as_box(parsed), as_box(sample.answer))

    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        """A hit is an IoU of at least one half; a unit is an image with all its expressions."""
        return count_by_image(self.right(scored), scored)

    def notes(self, scored: pd.DataFrame) -> Sequence[str]:
        """How many true boxes reach beyond their image."""
        count = int(scored[BOX_BEYOND_IMAGE].notna().sum()) if BOX_BEYOND_IMAGE in scored else 0
        if not count:
            return ()
        return (
            f"{count:,} of {len(scored):,} true boxes reach beyond their image; they are scored as "
            "they are.",
        )

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`acc@0.1` ... `acc@0.9`, `mean_iou`, `center_acc`, `unparsed_rate`."""
        iou = scored["score"]
        centers = [
            center_inside(as_box(parsed), as_box(answer)) if parsed is not None else False
            for parsed, answer in zip(scored["parsed"], scored["answer"], strict=True)
        ]
        return {
            **{f"acc@{limit}": float((iou >= limit).mean()) for limit in THRESHOLDS},
            "mean_iou": float(iou.mean()),
            "center_acc": float(pd.Series(centers, dtype=float).mean()),
            "unparsed_rate": unparsed_rate(scored),
        }
