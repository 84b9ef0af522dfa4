"""The table of paired comparisons: the numbers of the report, and what is said where they lack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_paired import letters

import ivcp
from ivcp.core.errors import UserError
from ivcp.metrics.group_metrics import GroupMetrics
from ivcp.metrics.multiple_choice import MultipleChoiceMetrics

METRIC = MultipleChoiceMetrics()


def test_numbers_are_those_of_the_report(
    make_scored: Callable[..., Path], read_entries: Any, tmp_path: Path
) -> None:
    make_scored("none", METRIC, letters("1" * 15 + "0" * 5), pruner="none")
    make_scored("some", METRIC, letters("1" * 8 + "0" * 10 + "11"), pruner="fastv", ratio=0.3)
    (line,) = ivcp.compare_runs(str(tmp_path)).to_dict("records")
    _, entry = read_entries(paired=True)
    low, high = entry.paired.difference.low, entry.paired.difference.high
    assert (line["pruner"], line["ratio"], line["dataset"]) == ("fastv", 0.3, "shapes")
    assert (line["value"], line["unpruned"]) == (0.5, 0.75)
    assert (line["difference"], line["difference_low"], line["difference_high"]) == (
        -0.25, low, high,
    )  # fmt: skip
    assert low < -0.25 < high
    assert line["relative"] == pytest.approx(2 / 3)
    assert (line["fixed"], line["regressed"], line["p"]) == (2, 7, entry.paired.p)
    assert line["folder"] == str(tmp_path / "some")


def test_the_tasks_of_a_group_follow_it(make_scored: Callable[..., Path], tmp_path: Path) -> None:
    group = GroupMetrics(tasks={name: {"metric": METRIC} for name in "ab"})
    answers = letters("1110", task="a") + letters("1100", task="b")
    for pruner in ("none", "fastv"):
        make_scored(pruner, group, answers, pruner=pruner, dataset="both")
    table = ivcp.compare_runs([tmp_path])
    assert list(table["dataset"]) == ["both", "both/a", "both/b"]
    assert list(table["difference"]) == [0, 0, 0]
    assert table["p"].notna().all()


def test_what_has_no_partner_is_unknown_and_said(
    make_scored: Callable[..., Path], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    make_scored("alone", METRIC, letters("10"), pruner="fastv")
    (make_run("broken", pruner="none", value=0.5, model="other") / "metrics.json").write_text("{")
    with pytest.warns(UserWarning, match="no") as warned:
        table = ivcp.compare_runs(tmp_path)
    first, second = (str(each.message) for each in warned)
    assert "broken/metrics.json is not the result of a run" in first
    assert "no unpruned run of the same model" in second
    unknown = ["unpruned", "difference", "difference_low", "relative", "fixed", "p"]
    assert table[unknown].isna().all(axis=None)
    assert isinstance(table["fixed"].dtype, pd.Int64Dtype)
    assert table["value"].item() == 0.5


def test_nothing_to_compare_is_one_sentence(
    make_scored: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        ivcp.compare_runs(tmp_path)
    make_scored("none", METRIC, letters("10"), pruner="none")
    with pytest.raises(UserError, match="all of these are unpruned"):
        ivcp.compare_runs(tmp_path)
