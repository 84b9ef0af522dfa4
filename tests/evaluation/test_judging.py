from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from ivcp.core.errors import UserError
from ivcp.core.judge import Judge
from ivcp.core.metric import AnswerMetric
from ivcp.core.types import Sample
from ivcp.evaluation.judging import judge_records
from ivcp.evaluation.records import Record


class Grades(AnswerMetric):
    """Has a prompt for all answers but "sure"; a reply is the score, or can't be read."""

    primary_metric = "mean"
    judged_by = "model"

    def read(self, prediction, sample, to_box):
        return prediction or None

    def score(self, parsed, sample):
        return float(parsed == sample.answer)

    def summarize(self, scored):
        return {"mean": float(scored["score"].mean())}

    def judge_prompt(self, prediction, parsed, sample):
        if prediction == "sure":
            return None
        return f"{sample.question} {sample.answer} {prediction} {parsed} {sample.options}"

    def parse_judge_reply(self, reply, sample):
        return (f"judged {sample.id}", float(reply)) if reply.replace(".", "").isdigit() else None


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
) -> Record:
    sample = Sample(
        id=name, task="open_ended", images=(), question=f"{name}?", answer="x", options=("p", "q"),
        benchmark=benchmark, labels={"task": task} if task else {},
    )  # fmt: skip
    return Record.of(0, sample, prediction=prediction, parsed=prediction, score=0.25, **more)


RECORDS = [
    record("a", "one"),
    record("b", "sure"),
    record("c", "three", failed="OSError"),
    Record(index=3, id="index-3", failed="unreadable"),
    record("e", "five"),
    record("f", "six"),
]


def test_all_prompts_go_at_once_and_scores_replace_the_rules() -> None:
    judge = Script("1", "0.5", "0")
    judged, info = judge_records(RECORDS, Grades(), judge)
    answers = [("a", "one"), ("e", "five"), ("f", "six")]
    prompts = [f"{name}? x {answer} {answer} ('p', 'q')" for name, answer in answers]
    assert judge.prompts == [prompts]
    assert [(one.parsed, one.score, one.judged) for one in judged] == [
        ("judged a", 1.0, "1"),
        ("sure", 0.25, None),
        ("three", 0.25, None),
        (None, 0.0, None),
        ("judged e", 0.5, "0.5"),
        ("judged f", 0.0, "0"),
    ]
    assert [one.prediction for one in judged] == [one.prediction for one in RECORDS]
    assert RECORDS[0].judged is None
    assert info == {
        "scored_by": "model",
        "reason": None,
        "prompts": 3,
        "scored": 3,
        "unscored": 0,
        "account": {"model": "script"},
    }


def test_the_rule_stands_where_the_judge_gives_no_score() -> None:
    judged, info = judge_records(RECORDS, Grades(), Script(None, "hm", "0.5"))
    assert [(one.parsed, one.score, one.judged) for one in (judged[0], judged[4], judged[5])] == [
        ("one", 0.25, None),
        ("five", 0.25, "hm"),
        ("judged f", 0.5, "0.5"),
    ]
    assert info["scored_by"] == "model"
    assert (info["prompts"], info["scored"], info["unscored"]) == (3, 1, 2)
    assert "2 of 3 answers" in info["reason"]


def test_without_any_score_of_the_judge_the_rule_scored() -> None:
    judged, info = judge_records(RECORDS, Grades(), Script(None, None, None))
    assert (judged, info["scored_by"], info["scored"]) == (RECORDS, "rule", 0)
    assert "3 of 3 answers" in info["reason"]


def test_no_judge_is_a_reason_where_a_model_is_meant() -> None:
    judged, info = judge_records(RECORDS, Grades(), None)
    reason = info.pop("reason")
    assert judged == RECORDS
    assert info == {"scored_by": "rule", "prompts": 3, "scored": 0}
    assert reason.startswith(
        "MMVet: answers are meant to be graded by a model, but a rule stood in"
    )
    assert "judge=openai" in reason
    assert judge_records(RECORDS, Rules(), None)[1] == {**info, "reason": None}


def test_of_a_group_only_the_tasks_that_need_a_model_are_named() -> None:
    ruled = record("g", "seven", "ruled", "MMStar")
    graded = record("h", "eight", "graded")
    assert judge_records([ruled], TaskGroup(), None)[1]["reason"] is None
    reason = judge_records([ruled, graded], TaskGroup(), None)[1]["reason"]
    assert reason.startswith("MMVet: ")
    assert "MMStar" not in reason


@pytest.mark.parametrize("metric", [Grades(), Rules()])
@pytest.mark.parametrize(
    "judge",
    [Script(missing="No key in X: set it."), Script(error=UserError("No key in X: set it."))],
)
def test_a_judge_that_cannot_be_used_costs_no_predictions(metric, judge) -> None:
    judged, info = judge_records(RECORDS, metric, judge)
    assert judged == RECORDS
    reason = "No key in X: set it. No model scored the answers; rules stood in."
    assert info == {
        "scored_by": "rule", "reason": reason, "prompts": 3, "scored": 0,
        "account": {"model": "script"},
    }  # fmt: skip
    assert bool(judge.prompts) == (judge.why is None)


def test_a_defect_of_a_judge_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        judge_records(RECORDS, Grades(), Script(error=ZeroDivisionError()))


def test_without_prompts_no_judge_is_used() -> None:
    judge = Script(missing="No key.")
    for one in (judge, None):
        judged, info = judge_records(RECORDS[1:4], Grades(), one)
        assert judged == RECORDS[1:4]
        assert info == {"scored_by": "rule", "reason": None, "prompts": 0, "scored": 0}
    assert not judge.prompts
