"""Replies to questions about clips: read strictly, and as each benchmark's own code reads them."""

from __future__ import annotations

import math

import pytest

from ivcp.core.metric import ScoredAnswer
from ivcp.core.types import Sample
from ivcp.metrics.video_choice import VideoChoiceMetrics
from ivcp.metrics.video_yes_no import VideoYesNoMetrics

OPTIONS = ("red", "green", "blue", "black", "white")
CAPTIONS = ("Caption A: it sits, then it runs", "Caption B: it runs, then it sits")
NUMBERED = ("Option 1: it sits, then it runs", "Option 2: it runs, then it sits")


def sample(benchmark: str, options: tuple[str, ...] = OPTIONS, kind: str = "") -> Sample:
    return Sample(
        id="0", task="multiple_choice", images=(), question="Which?", answer="B", options=options,
        benchmark=benchmark, labels={"task_type": kind},
    )  # fmt: skip


@pytest.mark.parametrize(  # upstream's verdicts worked out by hand from its code
    ("benchmark", "reply", "strict", "upstream"),
    [
        ("Video-MME", "B", "B", "B"),
        ("Video-MME", "B. green", "B", "B"),
        ("Video-MME", "Because it is red.", "A", "B"),  # the first capital letter anywhere
        ("Video-MME", "The best answer is D.", "D", "D"),
        ("Video-MME", "Best option: C", "C", "B"),  # a comma is missing in the list of prefixes
        ("Video-MME", "E", "E", "E"),  # no A to D, so that VLMEvalKit looks further
        ("Video-MME", "it is green", "B", "B"),
        ("Video-MME", "I do not know", None, None),
        ("LongVideoBench", "Even so, it is blue.", "C", "E"),
        ("LongVideoBench", "", None, None),
        ("MVBench", "", None, "B"),  # the empty text is a part of "(b)"
        ("MVBench", "(", None, "B"),
        ("MVBench", ")", None, "B"),
        ("MVBench", "b) green", "B", "B"),
        ("MVBench", "(A) red", "A", "A"),
        ("MVBench", "The answer is (B).", "B", "B"),
        ("MLVU_MCQ", "B) green", "B", "B"),
        ("MLVU_MCQ", "(B) green or (A) red", None, "B"),  # the first bracket decides
        ("MLVU_MCQ", "A", "A", "A"),
        ("MLVU_MCQ", ")", None, None),
        ("TempCompass_MCQ", "B", "B", "B"),
        ("TempCompass_MCQ", "B. green", "B", "B"),
        ("TempCompass_MCQ", "B) green", "B", "B"),
        ("TempCompass_MCQ", "(B) green", "B", None),
        ("TempCompass_MCQ", "green", "B", None),
        ("EgoSchema", "(C)", "C", "C"),
        ("EgoSchema", "A blue dog.", "C", "A"),  # the article, as of questions about images
    ],
)
def test_letters(benchmark, reply, strict, upstream) -> None:
    question = sample(benchmark)
    for compat, letter in (("strict", strict), ("vlmevalkit", upstream), ("release", upstream)):
        assert VideoChoiceMetrics(compat).read(reply, question, lambda _: None) == letter, compat


@pytest.mark.parametrize(
    ("options", "reply", "strict", "upstream"),
    [
        (CAPTIONS, "Caption B", "B", "B"),
        (CAPTIONS, "Caption B: it runs, then it sits", "B", "B"),
        (CAPTIONS, "it runs, then it sits", "B", "B"),
        (CAPTIONS, "B", "B", "B"),
        (CAPTIONS, "B.", "B", "B"),
        (CAPTIONS, "The right one is caption b.", "B", None),
        (NUMBERED, "Option 2", "B", "B"),
        (NUMBERED, "2", "B", "B"),
        (NUMBERED, "(2)", "B", None),
        (NUMBERED, "2) it runs, then it sits", "B", "B"),
        (NUMBERED, "Option 1 or option 2", None, None),
        (NUMBERED, "Option 3", None, None),
        (NUMBERED, "neither", None, None),
    ],
)
def test_captions_are_named_in_their_own_way(options, reply, strict, upstream) -> None:
    question = sample("TempCompass_MCQ", options, "caption_matching")
    for compat, letter in (("strict", strict), ("vlmevalkit", upstream)):
        assert VideoChoiceMetrics(compat).read(reply, question, lambda _: None) == letter, compat


def test_unparsed_answers_are_wrong_and_tasks_count_alike_in_the_macro_mean() -> None:
    rows = [("plotQA", "A"), ("plotQA", "A"), ("plotQA", None), ("count", "A"), ("count", "B")]
    answers = [
        ScoredAnswer(parsed, "A", float(parsed == "A"), {"task_type": task, "duration": "short"})
        for task, parsed in rows
    ]
    values = VideoChoiceMetrics(macro="task_type").values(answers)
    assert list(values)[:3] == ["accuracy", "macro_accuracy", "unparsed_rate"]
    assert values == pytest.approx(
        {
            "accuracy": 3 / 5, "macro_accuracy": (2 / 3 + 1 / 2) / 2, "unparsed_rate": 1 / 5,
            "duration/short": 3 / 5, "task_type/count": 1 / 2, "task_type/plotQA": 2 / 3,
        }
    )  # fmt: skip
    assert "macro_accuracy" not in VideoChoiceMetrics().values(answers)
    assert math.isnan(VideoChoiceMetrics(macro="task_type").values([])["macro_accuracy"])


@pytest.mark.parametrize(
    ("reply", "strict", "upstream"),
    [
        ("Yes.", "Yes", "Yes"),
        ("no, it is not", "No", "No"),
        ("It is: no", "No", None),
        ("Nothing moves", None, "No"),
        ("Yes and no", None, "Yes"),
        ("", None, None),
    ],
)
def test_yes_and_no(reply, strict, upstream) -> None:
    question = Sample(id="0", task="yes_no", images=(), question="?", answer="Yes")
    for compat, word in (("strict", strict), ("vlmevalkit", upstream)):
        assert VideoYesNoMetrics(compat).read(reply, question, lambda _: None) == word, compat


def test_yes_and_no_by_dimension() -> None:
    answers = [
        ScoredAnswer("Yes", "Yes", 1.0, {"dim": "order"}),
        ScoredAnswer(None, "No", 0.0, {"dim": "order"}),
        ScoredAnswer("No", "No", 1.0, {"dim": "speed"}),
    ]
    values = VideoYesNoMetrics().values(answers)
    assert (values["dim/order"], values["dim/speed"]) == (0.5, 1)
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert (values["f1"], values["unparsed_rate"]) == (1, pytest.approx(1 / 3))
