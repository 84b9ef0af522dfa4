"""Which runs are compared, in which order, and what each line of a table knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ivcp.report.comparison import merge_repeats
from ivcp.results.load import find_runs


@pytest.fixture
def make_several(make_run: Any) -> None:
    make_run("p", pruner="fastv", value=0.45, dataset="pope", primary_metric="f1")
    make_run("a", pruner="random", value=0.3, ratio=0.1, layers=[4])
    make_run("b", pruner="fastv", value=0.8, layers=[2, 6])
    make_run("c", pruner="ivcp", value=0.6, layers=[4])
    make_run("d", pruner="none", value=0.9, ratio=0.1)
    make_run("e", pruner="failed", value=None, ratio=0.1)


@pytest.mark.usefixtures("make_several")
def test_order_is_dataset_then_ratio_then_score(read_entries: Any) -> None:
    names = [entry.run.folder.name for entry in read_entries()]
    assert names == ["p", "d", "b", "c", "a", "e"]


@pytest.mark.usefixtures("make_several")
def test_relative_and_difference_are_against_the_unpruned_run(read_entries: Any) -> None:
    entries = {entry.run.folder.name: entry for entry in read_entries()}
    assert {name: entry.relative for name, entry in entries.items()} == {
        "p": None, "d": 1, "b": pytest.approx(0.8 / 0.9), "c": pytest.approx(0.6 / 0.9),
        "a": pytest.approx(0.3 / 0.9), "e": None,
    }  # fmt: skip
    assert [entries[name].difference for name in "dbe"] == [None, pytest.approx(-0.1), None]
    assert [entries[name].layers for name in "dbce"] == ["", "2+6", "4", ""]
    assert [entries[name].ratio for name in "dba"] == [1, 0.5, 0.1]


def test_an_unpruned_score_of_zero_gives_no_relation(make_run: Any, read_entries: Any) -> None:
    make_run("a", pruner="none", value=0.0)
    make_run("b", pruner="random", value=0.1)
    assert [entry.relative for entry in read_entries()] == [None, None]


def test_a_baseline_is_the_latest_of_the_same_model_dataset_and_settings(
    make_run: Any, read_entries: Any
) -> None:
    make_run("base", pruner="none", value=0.9)
    make_run("older", pruner="none", value=0.7, date="2025-12-31")
    later: dict[str, Any] = {"pruner": "none", "value": 0.8, "date": "2026-02-01"}
    make_run("other_samples", samples=10, **later)
    make_run("other_pixels", config={"model": {"max_pixels": 3}}, **later)
    make_run("other_model", model="big", **later)
    make_run("other_dataset", dataset="shapes_count", **later)
    make_run("pruned", pruner="random", value=0.5)
    make_run("alone", pruner="random", value=0.5, dataset="shapes_pope")
    entries = {entry.run.folder.name: entry for entry in read_entries()}
    assert entries["pruned"].base is entries["older"].base is entries["base"]
    assert entries["older"].relative == pytest.approx(0.7 / 0.9)
    for name in ("base", "other_samples", "other_model", "alone"):
        assert entries[name].base is None


def test_what_prunes_nowhere_is_a_baseline_whatever_its_name(
    make_run: Any, read_entries: Any
) -> None:
    make_run("base", pruner="ivcp", value=0.9, ratio=1.0, unpruned=True)
    make_run("pruned", pruner="ivcp", value=0.5)
    base, pruned = read_entries()
    assert (pruned.base, base.ratio, base.relative) == (base, 1.0, 1.0)


def test_a_group_holds_an_entry_for_each_task_with_results(
    make_run: Any, read_entries: Any
) -> None:
    make_run(
        "a",
        pruner="ivcp",
        value=0.7,
        dataset="general",
        primary_metric="average",
        layers=[4],
        values={"mme/total": 1134.7, "mme/unparsed_rate": 0.5, "pope/f1": None},
        tasks={
            "mme": {"name": "total", "unit": "", "metric": "a.Mme"},
            "pope": {"name": "f1", "unit": "%", "metric": "a.Pope"},
            "empty": {"name": "f1", "unit": "%", "metric": "a.Pope"},
        },
    )
    (group,) = read_entries()
    assert (group.metric.metric, group.metric.unit, group.group) == ("", "%", "")
    mme, pope = group.tasks
    assert (mme.dataset, mme.group, mme.name) == ("mme", "general", "general/mme")
    assert (mme.metric.name, mme.metric.value, mme.metric.unit) == ("total", 1134.7, "")
    assert (mme.metric.metric, mme.unparsed_rate, group.unparsed_rate) == ("a.Mme", 0.5, 0.25)
    assert (mme.ratio, mme.layers, mme.info) == (0.5, "4", group.info)
    assert (mme.tokens.keep_ratio, mme.samples, mme.tasks) == (None, None, ())
    assert (pope.dataset, pope.metric.value) == ("pope", None)


def test_repeated_runs_become_the_latest(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="none", value=0.9, ratio=0.5, date="2026-01-01")
    make_run("b", pruner="none", value=0.9, ratio=0.3, date="2026-01-02")
    make_run("c", pruner="none", value=0.8, ratio=0.3, date="2026-01-01")
    make_run("d", pruner="random", value=0.5, ratio=0.3)
    make_run("e", pruner="random", value=0.5, ratio=0.3)
    for name, seed in (("f", 0), ("g", 0), ("h", 1)):
        config = {"pruner": {"seed": seed}}
        make_run(name, pruner="random", value=0.5, ratio=0.3, config=config, date=f"2026-{name}")
    make_run("i", pruner="random", value=0.5, ratio=0.3, config={"pruner": {"seed": 1}, "limit": 9})
    merged, left_out = merge_repeats(find_runs([tmp_path])[0])
    assert left_out == 2
    assert sorted(run.folder.name for run in merged) == ["b", "c", "d", "e", "g", "h", "i"]
