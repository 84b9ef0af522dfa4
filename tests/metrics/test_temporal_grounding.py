"""Spans of time: what is read from a reply, and how it is scored."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ivcp.core.errors import UserError
from ivcp.core.metric import ScoredAnswer
from ivcp.core.types import Sample, Span
from ivcp.metrics.temporal_grounding import (
    TemporalGroundingMetrics,
    read_span,
    read_span_as_lmms,
    span_iou,
)

ANSWERS = [  # right, wrong and unparsed ones
    ScoredAnswer(
        None if stop % 5 == 1 else (0.0, 6.0),
        (0.0, float(stop)),
        0.0 if stop % 5 == 1 else min(6, stop) / max(6, stop),
    )
    for stop in range(1, 12)
]


@pytest.mark.parametrize(
    ("reply", "span"),
    [
        ("The event happens in the 24.3 - 30.4 seconds.", (24.3, 30.4)),
        ("24.3-30.4", (24.3, 30.4)),
        ("30.4 - 24.3 seonds", (24.3, 30.4)),
        ("from 3 to 7 seconds", (3.0, 7.0)),
        ("3.5s - 7.25s", (3.5, 7.25)),
        ("3 seconds \N{EN DASH} 7 seconds", (3.0, 7.0)),
        ("between 3 and 7 seconds", (3.0, 7.0)),
        ("0:02 - 0:15", (2.0, 15.0)),
        ("from 00:01:05 to 00:01:10.5", (65.0, 70.5)),
        ("The start time is 0 seconds, and the end time is 12 seconds.", (0.0, 12.0)),
        ("Starting time: 0.8 seconds\nEnding time: 1.1 seconds", (0.8, 1.1)),
        ("It starts at 00:00:18 and ends at 00:00:23.", (18.0, 23.0)),
        ("First 1 - 2, then 5 - 6", (1.0, 2.0)),
        ("5 - 5", (5.0, 5.0)),
        ("at 5 seconds", None),
        ("There are 2 and 3 of them.", None),
        ("It happens at the end.", None),
        ("", None),
    ],
)
def test_reading(reply: str, span: Span | None) -> None:
    assert read_span(reply) == span


@pytest.mark.parametrize(  # worked out by hand from eval_tvg.py of lmms-eval
    ("reply", "span"),
    [
        ("The event happens in the 24.3 - 30.4 seconds.", (24.3, 30.4)),
        ("30.4 to 24.3", (24.3, 30.4)),
        ("A specific example is : 20.8 - 30.0 seconds. It is 1 - 2", (1.0, 2.0)),
        ("Starting time: 0.8 seconds\nEnding time: 1.1 seconds", (0.8, 1.1)),
        ("The start time is 0 seconds, and the end time is 12 seconds.", None),
        ("0:02 - 0:15", (0.0, 2.0)),
        ("from 3 seconds to 7 seconds", None),
        ("3..5 - 4", None),
        ("", None),
    ],
)
def test_reading_as_lmms(reply: str, span: Span | None) -> None:
    assert read_span_as_lmms(reply) == span


def test_a_long_number_takes_no_long_time() -> None:
    assert read_span("9" * 20_000) is read_span_as_lmms("9" * 20_000) is None


def test_iou_agrees_with_a_count_of_seconds() -> None:
    spans = [(a, b) for a in range(6) for b in range(a, 6)]
    for span in spans:
        for other in spans:
            seconds = [set(range(*times)) for times in (span, other)]
            union = len(seconds[0] | seconds[1])
            expected = len(seconds[0] & seconds[1]) / union if union else 0.0
            assert span_iou(span, other) == pytest.approx(expected)


def sample(answer: Any) -> Sample:
    return Sample(id="0", task="temporal_grounding", images=(), question="it", answer=answer)


def test_recall_at_thresholds_and_the_mean() -> None:
    metric = TemporalGroundingMetrics()
    truth = sample((0.0, 10.0))
    replies = ("0 - 10", "0 - 7", "0 - 5", "2 - 5", "0 - 2", "I cannot tell")
    parsed = [metric.read(reply, truth, lambda _: None) for reply in replies]
    scores = [metric.score(span, truth) for span in parsed]
    assert scores == pytest.approx([1, 0.7, 0.5, 0.3, 0.2, 0])
    answers = [
        ScoredAnswer(span, truth.answer, score) for span, score in zip(parsed, scores, strict=True)
    ]
    assert metric.values(answers) == pytest.approx(
        {
            "mean_iou": 2.7 / 6, "r@0.3": 4 / 6, "r@0.5": 3 / 6, "r@0.7": 2 / 6,
            "unparsed_rate": 1 / 6,
        }
    )  # fmt: skip


def test_the_rule_is_chosen_by_compat() -> None:
    reply, truth = "from 3 s to 7 s", sample((3.0, 7.0))
    read = [
        TemporalGroundingMetrics(rule).read(reply, truth, lambda _: None)
        for rule in ("strict", "lmms")
    ]
    assert read == [(3.0, 7.0), None]
    with pytest.raises(UserError, match=r"metric\.compat must be strict or lmms .*; got 'release'"):
        TemporalGroundingMetrics("release")  # type: ignore[arg-type]


def test_endless_times_and_other_answers_are_none() -> None:
    metric = TemporalGroundingMetrics()
    assert metric.read(f"0 - {'9' * 400}", sample((0.0, 1.0)), lambda _: None) is None
    with pytest.raises(TypeError, match="Expected a start and an end as answer"):
        metric.score((0.0, 1.0), sample("3 - 4"))
    assert math.isnan(metric.values([])["mean_iou"])
