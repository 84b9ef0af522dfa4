from __future__ import annotations

import pytest

from ivcp.core.metric import ScoredAnswer
from ivcp.core.types import Sample
from ivcp.metrics.mmvet import MmVetMetrics, holds


@pytest.mark.parametrize(
    ("reply", "wanted", "right"),
    [
        ("x = -5 or x = -1", "-1 <AND> -5", True),
        ("x = -5", "-1 <AND> -5", False),
        ("A  Rabbit", "hare <OR> rabbit", True),
        ("a dog", "hare <OR> rabbit", False),
        ("5 cats", "cat <AND> 4 <OR> 5", True),
    ],
)
def test_the_stand_in_wants_the_parts_word_for_word(reply, wanted, right) -> None:
    assert holds(reply, wanted) is right


def test_the_judge_is_told_everything_and_its_grade_is_read() -> None:
    metric = MmVetMetrics()
    sample = Sample(
        id="0", task="open_ended", images=(), question="What\nis it?", answer="cat <AND> dog"
    )
    prompt = metric.judge_prompt("a cat\n and more", "a cat", sample)
    assert "What is it? | Right: cat <AND> dog | Answer: a cat and more | Grade:" in prompt
    assert metric.judge_prompt(" ", " ", sample) is None
    grades = {
        "0.5": 0.5, "Grade: 1.0": 1.0, "0": 0.0, " 0.75.": 0.75, "1": 1.0,
        "..0.5": None, "0." + "1" * 100_000 + ".1": None, ".5": None, "0.5.": 0.5,
        "good": None, "7": None, "10": None, "1.5": None, "0.5 or 0.6": None, "": None,
    }  # fmt: skip
    heard = {text: metric.parse_judge_reply(text, sample) for text in grades}
    assert {text: one and one[1] for text, one in heard.items()} == grades


def test_the_mean_by_capability() -> None:
    scored = [
        ScoredAnswer("x", "x", 1.0, {"category": "ocr,math"}),
        ScoredAnswer("x", "x", 0.5, {"category": "ocr"}),
        ScoredAnswer("", "x", 0.0, {"category": "know"}),
    ]
    assert MmVetMetrics().values(scored) == pytest.approx(
        {
            "grade": 0.5, "unparsed_rate": 1 / 3, "capability/ocr": 0.75, "capability/math": 1.0,
            "capability/know": 0.0,
        }
    )  # fmt: skip
