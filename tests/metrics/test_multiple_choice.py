"""Option letters beyond what the recorded answers show."""

from __future__ import annotations

import time

import pytest

from ivcp.core.metric import ScoredAnswer
from ivcp.core.types import Sample
from ivcp.metrics.multiple_choice import ARTICLE, MultipleChoiceMetrics, read_letter


def test_without_options_nothing_is_read() -> None:
    assert read_letter("A", ()) is None


def test_a_refusal_is_not_overruled_by_the_text_of_an_option() -> None:
    assert read_letter("a cat", ("cat", "dog")) == "A"
    assert read_letter("Z, no cat", ("cat", "dog")) is None


CARS = ("blue truck", "blue car", "red car", "a dog")


@pytest.mark.parametrize(
    ("reply", "vlmevalkit", "strict"),
    [
        ("The answer is a blue car.", "A", "B"),
        ("A blue car.", "A", "B"),
        ("It is clear. A blue car!", "A", "B"),
        ("A bus is there. Answer: C", None, "C"),
        ("It is B. A blue car it is", "B", "B"),
        ("The answer is a bus.", "A", None),
        ("A", "A", "A"),
        ("A.", "A", "A"),
        ("the answer is a", "A", "A"),
        ("A. blue truck", "A", "A"),
        ("(A) blue truck", "A", "A"),
        ("Answer: A blue truck", "A", "A"),
        ("A is the answer", "A", "A"),
        ("A because it is", "A", "A"),
        ("A or B", None, None),
        ("Both A and B", None, None),
        ("a", None, None),
    ],
)
def test_strict_rules_do_not_take_an_article_for_a_letter(reply, vlmevalkit, strict) -> None:
    assert read_letter(reply, CARS) == vlmevalkit
    assert read_letter(reply, CARS, "strict") == strict


def test_articles_are_found_in_linear_time() -> None:
    start = time.perf_counter()
    for text in (" a", "a ", "A ", ". ", "\n", '"', " ", "a a"):
        ARTICLE.sub("", text * 100_000)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("gold", "reply", "letter"),
    [("B", "B", "B"), ("A", "A", "A"), ("C", "a cat", "A"), ("C", "C", "A"), ("C", "a dog", None)],
)
def test_an_open_question_whose_answer_is_one_letter_is_read_as_documented(
    gold, reply, letter
) -> None:
    """Of MMMU; option A is the answer, so only "A" is right."""
    assert read_letter(reply, (gold, "Other Answers")) == letter


def test_an_empty_option_is_none() -> None:
    options = ("cat", "", "dog")
    assert read_letter("B", options) is None
    assert read_letter("a dog", options) == "C"


def sample(**labels: str) -> Sample:
    return Sample(
        id="0", task="multiple_choice", images=(), question="How many?", answer="B",
        options=("1", "2"), labels=labels,
    )  # fmt: skip


def test_accuracy_counts_the_unread() -> None:
    metric = MultipleChoiceMetrics()
    parsed = [metric.read(text, sample(), lambda text: None) for text in ("B.", "A", "?", "2")]
    assert parsed == ["B", "A", None, "B"]
    scores = [metric.score(letter, sample()) for letter in parsed]
    assert scores == [1, 0, 0, 1]
    scored = [ScoredAnswer(*pair) for pair in zip(parsed, ["B"] * 4, scores, strict=True)]
    assert metric.values(scored) == {"accuracy": 0.5, "unparsed_rate": 0.25}


def test_accuracy_by_label() -> None:
    scored = [
        ScoredAnswer("B", "B", 1.0, {"category": "few", "split": "val"}),
        ScoredAnswer("A", "B", 0.0, {"category": "many", "split": "val"}),
        ScoredAnswer("A", "B", 0.0, {"category": "many"}),
    ]
    values = MultipleChoiceMetrics().values(scored)
    by_label = {name: value for name, value in values.items() if "/" in name}
    assert by_label == {"category/few": 1, "category/many": 0, "split/val": 0.5}


def test_a_judge_is_asked_only_where_no_letter_was_found() -> None:
    metric = MultipleChoiceMetrics()
    assert metric.judge_prompt("B", "B", sample()) is None
    prompt = metric.judge_prompt("the latter", None, sample())
    for part in ("How many?", "A. 1\nB. 2", "the latter"):
        assert part in prompt
    assert metric.parse_judge_reply(" B.", sample()) == ("B", 1.0)
    assert metric.parse_judge_reply("A", sample()) == ("A", 0.0)
    assert metric.parse_judge_reply("Z", sample()) == (None, 0.0)
    assert [metric.parse_judge_reply(text, sample()) for text in ("C", "A or B", "")] == [None] * 3
