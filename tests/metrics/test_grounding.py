"""Boxes, against third parties and a slow count of pixels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ivcp.core.metric import ScoredAnswer, to_frame
from ivcp.core.types import Box, Sample
from ivcp.metrics.grounding import THRESHOLDS, GroundingMetrics, as_box, box_iou, center_inside

ANSWERS = [  # right, wrong and unparsed ones
    ScoredAnswer(
        None if height % 5 == 1 else (0.0, 0.0, 10.0, 6.0),
        (0.0, 0.0, 10.0, float(height)),
        0.0 if height % 5 == 1 else min(6, height) / max(6, height),
    )
    for height in range(1, 12)
]
ROWS = json.loads((Path(__file__).parent / "golden/grounding.json").read_text())["rows"]


def make_sample(box: Box) -> Sample:
    image = Image.new("RGB", (8, 8))
    return Sample(id="0", task="grounding", images=(image,), question="it", answer=box)


def random_boxes(count: int, seed: int) -> list[Box]:
    corners = torch.randint(0, 12, (count, 2, 2), generator=torch.Generator().manual_seed(seed))
    low, high = corners.amin(1), corners.amax(1)
    rows = torch.cat((low, high), 1).double().tolist()
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in rows]


@pytest.mark.parametrize("row", ROWS)
def test_iou_and_centre_agree_with_other_evaluation_kits(row: dict[str, Any]) -> None:
    iou = box_iou(row["predicted"], row["truth"])
    assert iou == pytest.approx(row["iou"], abs=1e-9)
    assert (iou >= 0.5) == bool(row["hit"])
    if "center" in row:
        assert center_inside(row["predicted"], row["truth"]) == row["center"]


def test_iou_agrees_with_a_count_of_pixels() -> None:
    def cells(box: Box) -> set[tuple[int, int]]:
        x1, y1, x2, y2 = (int(value) for value in box)
        return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}

    for a, b in zip(random_boxes(200, 0), random_boxes(200, 1), strict=True):
        union = len(cells(a) | cells(b))
        expected = len(cells(a) & cells(b)) / union if union else 0.0
        assert box_iou(a, b) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "truth", "iou", "center"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0, True),
        ((10, 10, 0, 0), (0, 0, 10, 10), 1.0, True),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0, False),
        ((5, 5, 5, 5), (0, 0, 10, 10), 0.0, True),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0.0, True),
        (None, (0, 0, 10, 10), 0.0, False),
    ],
)
def test_edge_cases(predicted: Box | None, truth: Box, iou: float, center: bool) -> None:
    assert box_iou(predicted, truth) == iou
    assert center_inside(predicted, truth) is center


def values(boxes: list[Box | None], truth: Box) -> dict[str, float]:
    metric = GroundingMetrics()
    scores = [metric.score(box, make_sample(truth)) for box in boxes]
    return metric.values(
        [ScoredAnswer(box, truth, score) for box, score in zip(boxes, scores, strict=True)]
    )


def test_thresholds_include_their_value() -> None:
    told = values([(0, 0, 10, part) for part in (1, 3, 5, 7, 9)], (0, 0, 10, 10))
    assert [told[f"acc@{t}"] for t in THRESHOLDS] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert told["mean_iou"] == pytest.approx(0.5)


def test_unparsed_answers_stay_in_every_denominator() -> None:
    told = values([(0, 0, 10, 10), None], (0, 0, 10, 10))
    assert list(told) == [
        *(f"acc@{threshold}" for threshold in THRESHOLDS),
        "mean_iou",
        "center_acc",
        "unparsed_rate",
    ]
    assert set(told.values()) == {0.5}


def test_expressions_of_one_image_are_one_unit() -> None:
    metric, truth = GroundingMetrics(), (0.0, 0.0, 10.0, 10.0)
    images = ("7", None, "7", "8", None)
    frame = to_frame(
        ScoredAnswer(truth, truth, score, {"image_id": image} if image else {})
        for image, score in zip(images, (1.0, 0.9, 0.4, 0.5, 0.1), strict=True)
    )
    statistics = metric.sufficient_statistics(frame)
    assert statistics["score"].tolist() == [1, 1, 1, 0]  # hits, in order of appearance
    assert statistics["samples"].tolist() == [2, 1, 1, 1]
    assert len(metric.right(frame)) == 5


def test_reading_uses_the_family_and_refuses_infinite_boxes() -> None:
    metric, sample = GroundingMetrics(), make_sample((0, 0, 4, 4))
    assert metric.read("x", sample, lambda text: (4, 4, 0, 0)) == (0, 0, 4, 4)
    assert metric.read("x", sample, lambda text: None) is None
    assert metric.read("x", sample, lambda text: (0, 0, math.inf, 1)) is None
    assert metric.read("x", sample, lambda text: (0, 0, math.nan, 1)) is None
    assert metric.score((0, 0, 4, 2), sample) == 0.5
    assert metric.score(None, sample) == 0


def test_misuse_is_told() -> None:
    for wrong in ("A", (1, 2, 3), None):
        with pytest.raises(TypeError, match="Expected a box"):
            as_box(wrong)
