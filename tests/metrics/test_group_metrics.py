from __future__ import annotations

import math
from dataclasses import replace

import pytest
from recorded_answers import score_rows

from ivcp.core.errors import UserError
from ivcp.core.metric import ScoredAnswer
from ivcp.core.types import Sample
from ivcp.metrics.exact_match import ExactMatch
from ivcp.metrics.group_metrics import GroupMetrics
from ivcp.metrics.mme import MmeMetrics
from ivcp.metrics.pope import PopeMetrics


def task(name: str, scored: list[ScoredAnswer]) -> list[ScoredAnswer]:
    return [replace(one, labels={**one.labels, "task": name}) for one in scored]


def test_each_member_is_judged_by_its_own_metric() -> None:
    group = GroupMetrics({"pope": {"metric": PopeMetrics()}, "mme": {"metric": MmeMetrics()}})
    pope, mme = score_rows(PopeMetrics(), "pope"), score_rows(MmeMetrics(), "mme")
    values = group.values(task("mme", mme) + task("pope", pope))
    alone = PopeMetrics().values(pope), MmeMetrics().values(mme)
    for name, own in (("pope", alone[0]), ("mme", alone[1])):
        assert {f"{name}/{key}": value for key, value in own.items()}.items() <= values.items()
    assert group.primary_metric == "average"
    assert values["average"] == pytest.approx((alone[0]["f1"] + alone[1]["total"] / 2800) / 2)
    assert [group.unit(name) for name in ("average", "pope/f1", "mme/total")] == ["%", "%", ""]


def test_members_of_one_kind_have_averages_of_all_values() -> None:
    group = GroupMetrics({"a": {"metric": ExactMatch()}, "b": {"metric": ExactMatch()}})
    scored = task("a", [ScoredAnswer("x", "x", 1.0), ScoredAnswer("", "x", 0.0)])
    values = group.values(scored + task("b", [ScoredAnswer("x", "x", 1.0)]))
    assert group.primary_metric == "accuracy"
    assert (values["accuracy"], values["unparsed_rate"]) == (0.75, 0.25)


def test_members_of_one_kind_have_its_unit() -> None:
    group = GroupMetrics({"a": {"metric": MmeMetrics()}, "b": {"metric": MmeMetrics()}})
    assert (group.primary_metric, group.highest, group.unit("total")) == ("total", 2800, "")


def test_a_member_without_samples_does_not_count() -> None:
    group = GroupMetrics({"a": {"metric": ExactMatch()}, "b": {"metric": PopeMetrics()}})
    values = group.values(task("a", [ScoredAnswer("x", "x", 1.0)]))
    assert values["average"] == 1
    assert not any(name.startswith("b/") for name in values)
    assert math.isnan(group.values([])["average"])


def test_reading_scoring_and_judging_go_to_the_member() -> None:
    group = GroupMetrics({"pope": {"metric": PopeMetrics()}, "gqa": {"metric": ExactMatch()}})
    asked = Sample(
        id="s", task="yes_no", images=(), question="?", answer="Yes", labels={"task": "pope"}
    )
    assert group.read("Yes, it is", asked, lambda _: None) == "Yes"
    assert group.score("Yes", asked) == 1
    assert "hm" in group.judge_prompt("hm", None, asked)
    assert group.parse_judge_reply("No", asked) == ("No", 0.0)
    other = replace(asked, labels={"task": "gqa"})
    assert group.read("Yes, it is", other, lambda _: None) == "Yes, it is"
    assert group.judge_prompt("hm", "hm", other) is None


def test_no_members_are_refused() -> None:
    with pytest.raises(UserError, match="needs tasks"):
        GroupMetrics({})
