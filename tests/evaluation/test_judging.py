from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from ivcp.core.errors import UserError
from ivcp.core.judge import Judge
from ivcp.core.metric import AnswerMetric
from ivcp.core.types import Sample
from ivcp.evaluation.judging import judge_predictions
from ivcp.results.prediction import Prediction
from ivcp.results.schema import Judging


class Grades(AnswerMetric):
    """Asks about all answers but "sure"; a reply is the grade, or nothing that can be read."""

    primary_metric = "mean"
    judged_by = "model"

    def read(self, prediction, sample, to_box):
        return prediction or None

    def score(self, parsed, sample):
        return float(parsed == sample.answer)

    def summarize(self, verdicts):
        return {"mean": float(verdicts["score"].mean())}

    def judge_prompt(self, prediction, parsed, sample):
        if prediction == "sure":
            return None
        return f"{sample.question} {sample.answer} {prediction} {parsed} {sample.options}"

    def parse_judge_reply(self, reply, sample):
        return (f"heard {sample.id}", float(reply)) if reply.replace(".", "").isdigit() else None


class Rules(Grades):
    judged_by = "rule"


class Script(Judge):
    def __init__(
        self, *replies: str | None, missing: str | None = None, error: Exception | None = None
    ) -> None:
        self.replies, self.why, self.error = list(replies), missing, error
        self.prompts: list[list[str]] = []

    def missing(self) -> str | None:
        return self.why

    def complete(self, prompts: Sequence[str]) -> list[str | None]:
        self.prompts.append(list(prompts))
        if self.error:
            raise self.error
        return self.replies

    def account(self) -> dict[str, Any]:
        return {"model": "script"}


class TaskGroup(Rules):
    tasks: ClassVar = {"graded": Grades(), "ruled": Rules()}


def record(
    name: str, prediction: str, task: str = "", benchmark: str = "MMVet", **more: Any
) -> Prediction:
    sample = Sample(
        id=name, task="open_ended", images=(), question=f"{name}?", answer="x", options=("p", "q"),
        benchmark=benchmark, labels={"task": task} if task else {},
    )  # fmt: skip
    return Prediction.of(0, sample, prediction=prediction, parsed=prediction, score=0.25, **more)


PREDICTIONS = [
    record("a", "one"),
    record("b", "sure"),
    record("c", "three", failed="OSError"),
    Prediction(index=3, id="index-3", score=0, failed="unreadable"),
    record("e", "five"),
    record("f", "six"),
]


def test_all_is_asked_at_once_and_verdicts_replace_the_rules() -> None:
    judge = Script("1", "0.5", "0")
    judged, info = judge_predictions(PREDICTIONS, Grades(), judge)
    told = [("a", "one"), ("e", "five"), ("f", "six")]
    assert judge.prompts == [[f"{name}? x {said} {said} ('p', 'q')" for name, said in told]]
    assert [(one.parsed, one.score, one.judge_reply) for one in judged] == [
        ("heard a", 1.0, "1"),
        ("sure", 0.25, None),
        ("three", 0.25, None),
        (None, 0.0, None),
        ("heard e", 0.5, "0.5"),
        ("heard f", 0.0, "0"),
    ]
    assert [one.prediction for one in judged] == [one.prediction for one in PREDICTIONS]
    assert PREDICTIONS[0].judge_reply is None
    assert info == Judging(by="model", wanted=3, judged=3, account={"model": "script"})


def test_the_rule_stands_where_the_judge_says_nothing_of_use() -> None:
    judged, info = judge_predictions(PREDICTIONS, Grades(), Script(None, "hm", "0.5"))
    assert [
        (one.parsed, one.score, one.judge_reply) for one in (judged[0], judged[4], judged[5])
    ] == [
        ("one", 0.25, None),
        ("five", 0.25, "hm"),
        ("heard f", 0.5, "0.5"),
    ]
    assert (info.by, info.wanted, info.judged, info.unreadable) == ("model", 3, 1, 2)
    assert "2 of 3 answers" in info.reason


def test_without_any_verdict_the_rule_decided() -> None:
    judged, info = judge_predictions(PREDICTIONS, Grades(), Script(None, None, None))
    assert (judged, info.by, info.judged) == (PREDICTIONS, "rule", 0)
    assert "3 of 3 answers" in info.reason


def test_no_judge_is_said_where_a_model_is_meant() -> None:
    judged, info = judge_predictions(PREDICTIONS, Grades(), None)
    assert judged == PREDICTIONS
    assert (info.by, info.wanted, info.judged) == ("rule", 3, 0)
    assert info.reason.startswith(
        "MMVet: answers are meant to be graded by a model, but a rule stood in"
    )
    assert "judge=openai" in info.reason
    assert judge_predictions(PREDICTIONS, Rules(), None)[1] == Judging(wanted=3)


def test_of_a_suite_only_the_members_that_need_a_model_are_named() -> None:
    ruled = record("g", "seven", "ruled", "MMStar")
    graded = record("h", "eight", "graded")
    assert judge_predictions([ruled], TaskGroup(), None)[1].reason is None
    reason = judge_predictions([ruled, graded], TaskGroup(), None)[1].reason
    assert reason.startswith("MMVet: ")
    assert "MMStar" not in reason


@pytest.mark.parametrize("metric", [Grades(), Rules()])
@pytest.mark.parametrize(
    "judge",
    [Script(missing="No key in X: set it."), Script(error=UserError("No key in X: set it."))],
)
def test_a_judge_that_cannot_be_asked_costs_no_predictions(metric, judge) -> None:
    judged, info = judge_predictions(PREDICTIONS, metric, judge)
    assert judged == PREDICTIONS
    reason = "No key in X: set it. No model scored the answers; rules stood in."
    assert info == Judging(reason=reason, wanted=3, account={"model": "script"})
    assert bool(judge.prompts) == (judge.why is None)


def test_a_defect_of_a_judge_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        judge_predictions(PREDICTIONS, Grades(), Script(error=ZeroDivisionError()))


def test_nothing_to_judge_asks_nothing() -> None:
    judge = Script(missing="No key.")
    for one in (judge, None):
        judged, info = judge_predictions(PREDICTIONS[1:4], Grades(), one)
        assert judged == PREDICTIONS[1:4]
        assert info == Judging()
    assert not judge.prompts
