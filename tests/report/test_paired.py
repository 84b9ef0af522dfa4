"""Runs held against baselines: what comes out, and what stands in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ivcp.core.metric import ScoredAnswer
from ivcp.metrics.circular import CircularMetrics
from ivcp.metrics.group_metrics import GroupMetrics
from ivcp.metrics.mme import MmeMetrics
from ivcp.metrics.multiple_choice import MultipleChoiceMetrics
from ivcp.metrics.yes_no import YesNoMetrics
from ivcp.report import paired
from ivcp.report.comparison import Entry, Interval, Paired, Unpaired
from ivcp.report.paired import pair_entries, read_answers


class Mistaken(MultipleChoiceMetrics):
    def sufficient_statistics(self, scored: pd.DataFrame) -> pd.DataFrame:
        raise ValueError("No\nway")


def letters(rights: str, **labels: str) -> list[ScoredAnswer]:
    return [
        ScoredAnswer("A", "A" if right == "1" else "B", float(right), labels) for right in rights
    ]


def words(count: int, accuracy: float, seed: int, **labels: str) -> list[ScoredAnswer]:
    draw = np.random.default_rng(seed)
    answers = []
    for number in range(count):
        truth, wrong = ("Yes", "No") if number % 2 else ("No", "Yes")
        right = bool(draw.random() < accuracy)
        every = {"category": "OCR", "image_path": str(number // 2), **labels}
        answers.append(ScoredAnswer(truth if right else wrong, truth, float(right), every))
    return answers


def ends(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def rewrite(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "predictions.jsonl").write_text(text_of(lines))


@pytest.fixture
def compare(read_entries: Any) -> Callable[[], tuple[dict[str, Paired], list[Unpaired]]]:
    """Gives the statistics of the only pruned run by dataset."""

    def pair() -> tuple[dict[str, Paired], list[Unpaired]]:
        statistics, missing = pair_entries(read_entries())
        return {entry.dataset: one for entry, one in statistics.items()}, missing

    return pair


@pytest.fixture
def pair(make_scored: Any) -> tuple[Path, Path]:
    """Of twelve answers one is fixed and six are regressed."""
    base = make_scored("none", MultipleChoiceMetrics(), letters("111111110000"), pruner="none")
    run = make_scored("ivcp", MultipleChoiceMetrics(), letters("110000001000"), pruner="ivcp")
    return base, run


@pytest.mark.usefixtures("pair")
def test_a_pair_by_hand(compare: Any) -> None:
    statistics, missing = compare()
    one = statistics["shapes"]
    assert (one.fixed, one.regressed) == (1, 6)
    assert one.p == pytest.approx(2 * (1 + 7) / 2**7)
    low, high = ends(one.difference)
    assert low < -5 / 12 < high < 0
    assert not one.significant  # p is 0.125
    assert ends(one.relative)[0] < 3 / 8 < ends(one.relative)[1]
    assert missing == []
    assert compare() == compare()


def test_the_order_of_lines_does_not_matter(pair: tuple[Path, Path], compare: Any) -> None:
    before, _ = compare()
    rewrite(pair[1], lines_of(pair[1])[::-1])
    assert compare()[0] == before
    renumbered = [{**line, "index": 99 - line["index"]} for line in lines_of(pair[0])]
    rewrite(pair[0], renumbered)
    assert compare()[0] == before


def text_of(lines: list[dict[str, Any]], **changes: Any) -> str:
    return "".join(json.dumps({**line, **changes}) + "\n" for line in lines)


def torn(lines: list[dict[str, Any]]) -> str:
    return text_of(lines)[:-20]


def other(lines: list[dict[str, Any]]) -> str:
    return text_of(lines).replace("sample-", "xsample-")


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "predictions.jsonl is missing"),
        (torn, "predictions.jsonl is damaged at line 12"),
        (lambda _: "3\n", "predictions.jsonl is damaged at line 1"),
        (lambda _: "[" * 100_000, "predictions.jsonl is damaged at line 1"),
        (other, "it holds other samples than the unpruned run"),
        (lambda lines: text_of(lines, id="x"), "predictions.jsonl holds the sample x twice"),
        (
            lambda lines: text_of(lines, score=1.0),
            "predictions.jsonl gives another accuracy than metrics.json holds",
        ),
        (lambda lines: text_of(lines, score=None), "predictions.jsonl is damaged at line 1"),
        (lambda lines: torn(lines) + "\ud800", "predictions.jsonl is damaged at line 12"),
    ],
)
def test_broken_predictions_are_reported(
    pair: tuple[Path, Path],
    compare: Any,
    side: int,
    change: Callable[[list[dict[str, Any]]], str] | None,
    reason: str,
) -> None:
    file = pair[side] / "predictions.jsonl"
    text = change(lines_of(pair[side])) if change else None
    file.unlink()
    if text is not None:
        file.write_text(text, errors="surrogatepass")
    statistics, ((entry, why),) = compare()
    assert statistics == {}
    assert entry.info.pruner == "ivcp"
    assert reason in why
    about = "unpruned run: " if side == 0 and "other samples" not in reason else ""
    assert why.startswith(about)


def test_a_sample_less_is_reported(pair: tuple[Path, Path], compare: Any) -> None:
    lines = lines_of(pair[1])
    rewrite(pair[1], lines[1:])
    assert compare()[1][0][1] == "it holds other samples than the unpruned run"
    rewrite(pair[1], lines)
    rewrite(pair[0], lines_of(pair[0])[1:])
    assert "unpruned run: predictions.jsonl gives another" in compare()[1][0][1]


def test_a_metric_sees_samples_in_dataset_order(make_scored: Any, compare: Any) -> None:
    """Of three questions about an image MME pairs the first two."""
    for pruner, rights in (("none", "110"), ("ivcp", "100")):
        answers = letters(rights, category="OCR", image_path="a")
        folder = make_scored(pruner, MmeMetrics(), answers, pruner=pruner)
        rewrite(folder, lines_of(folder)[::-1])
    statistics, missing = compare()
    assert missing == []
    assert ends(statistics["shapes"].difference) == pytest.approx((-400 / 3, -400 / 3))


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("", "metrics.json names no metric"),
        ("nowhere.Metric", "nowhere.Metric is no metric"),
        ("json.JSONDecoder", "json.JSONDecoder is no metric"),
        (f"{__name__}.Mistaken", "cannot count predictions.jsonl again (No way)"),
        ("ivcp.metrics.yes_no.YesNoMetrics", "gives another accuracy than metrics.json holds"),
    ],
)
def test_a_foreign_metric_is_reported(
    pair: tuple[Path, Path],
    compare: Any,
    metric: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    point = EntryPoint("mistaken", f"{__name__}:Mistaken", "ivcp.metrics")
    monkeypatch.setattr("ivcp.core.metric.entry_points", lambda group: [point])
    file = pair[1] / "metrics.json"
    content = json.loads(file.read_text())
    content["run"]["primary_metric"]["metric"] = metric
    file.write_text(json.dumps(content))
    statistics, ((_, why),) = compare()
    assert statistics == {}
    assert reason in why


def test_units_must_be_the_same(make_scored: Any, compare: Any) -> None:
    def rotations(shift: int) -> list[ScoredAnswer]:
        return [
            replace(one, labels={"index": str(number + (number % 2) * (1_000_000 - shift))})
            for number, one in enumerate(letters("1111"))
        ]

    make_scored("a", CircularMetrics(), rotations(1), pruner="none")
    make_scored("b", CircularMetrics(), rotations(0), pruner="ivcp")
    statistics, ((_, why),) = compare()
    assert statistics == {}
    assert "counted in another way" in why


@pytest.mark.parametrize("metric", [MmeMetrics(), YesNoMetrics()], ids=["points", "f1"])
def test_primary_metrics_that_are_no_means(
    make_scored: Any, compare: Any, read_entries: Any, metric: Any
) -> None:
    make_scored("a", metric, words(200, 0.9, 1), pruner="none")
    make_scored("b", metric, words(200, 0.6, 2), pruner="ivcp")
    base, run = (float(entry.metric.value or 0) for entry in read_entries())
    one = compare()[0]["shapes"]
    (low, high), (least, most) = ends(one.difference), ends(one.relative)
    assert low < run - base < high < 0
    assert least < run / base < most < 1
    assert high - low < 0.25 * metric.highest


def test_a_baseline_is_read_once(
    make_scored: Any, read_entries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = MultipleChoiceMetrics()
    make_scored("a", metric, letters("1101"), pruner="none")
    for name in "bcd":
        make_scored(name, metric, letters("1001"), pruner="ivcp")
    read = []

    def counted(entry: Entry) -> Any:
        read.append(entry.run.folder.name)
        return read_answers(entry)

    monkeypatch.setattr(paired, "read_answers", counted)
    statistics, _ = pair_entries(read_entries())
    assert len(statistics) == 3
    assert sorted(read) == ["a", "b", "c", "d"]


def test_no_baseline_is_nothing_to_report(make_scored: Any, compare: Any) -> None:
    make_scored("b", MultipleChoiceMetrics(), letters("1001"), pruner="ivcp")
    make_scored("a", MultipleChoiceMetrics(), letters("1001"), pruner="none", dataset="pope")
    assert compare() == ({}, [])


def make_group(make_scored: Any, tasks: dict[str, Any]) -> None:
    """A baseline and a run; each task has a metric and the answers of both."""
    group = GroupMetrics({name: {"metric": metric} for name, (metric, *_) in tasks.items()})
    for side, pruner in enumerate(("none", "ivcp"), 1):
        answers = [answer for task in tasks.values() for answer in task[side]]
        make_scored(pruner, group, answers, pruner=pruner, dataset="group")


def test_tasks_have_statistics_too(make_scored: Any, compare: Any) -> None:
    one = letters("11111111", task="a"), letters("00000011", task="a")
    two = letters("0000", task="b"), letters("0100", task="b")
    metric = MultipleChoiceMetrics()
    make_group(make_scored, {"a": (metric, *one), "b": (metric, *two)})
    statistics, missing = compare()
    assert missing == []
    assert (statistics["a"].fixed, statistics["a"].regressed) == (0, 6)
    assert (statistics["b"].fixed, statistics["b"].regressed) == (1, 0)
    assert (statistics["group"].fixed, statistics["group"].regressed) == (1, 6)
    assert statistics["group"].p == pytest.approx(16 / 128)
    assert statistics["a"].significant
    assert statistics["b"].relative.low is None
    assert not statistics["b"].significant


def test_the_draws_of_tasks_are_independent(make_scored: Any, compare: Any) -> None:
    """The mean of two independent differences varies less than each of them, by root 2."""
    draw = np.random.default_rng(0)
    texts = ["".join(map(str, row)) for row in draw.integers(0, 2, (2, 300))]
    metric = MultipleChoiceMetrics()
    sides = {name: [letters(text, task=name) for text in texts] for name in "ab"}
    make_group(make_scored, {name: (metric, *both) for name, both in sides.items()})
    statistics, _ = compare()
    a, b, together = (np.ptp(ends(statistics[name].difference)) for name in ("a", "b", "group"))
    assert together == pytest.approx((a + b) / 2 / 2**0.5, rel=0.1)


def test_points_count_as_fractions_in_an_average(make_scored: Any, compare: Any) -> None:
    mme = words(100, 0.9, 1, task="mme"), words(100, 0.7, 2, task="mme")
    flat = letters("1" * 50, task="flat"), letters("1" * 50, task="flat")
    make_group(make_scored, {"mme": (MmeMetrics(), *mme), "flat": (MultipleChoiceMetrics(), *flat)})
    statistics, missing = compare()
    assert missing == []
    mme_ends = np.array(ends(statistics["mme"].difference))
    assert ends(statistics["group"].difference) == pytest.approx(mme_ends / 2800 / 2)
    assert ends(statistics["flat"].difference) == (0, 0)


def test_a_task_that_fails_leaves_the_others(
    make_scored: Any, compare: Any, tmp_path: Path
) -> None:
    metric = MultipleChoiceMetrics()
    sides = {name: [letters(text, task=name) for text in ("11", "10")] for name in "ab"}
    make_group(make_scored, {name: (metric, *both) for name, both in sides.items()})
    lines = lines_of(tmp_path / "ivcp")
    rewrite(tmp_path / "ivcp", [{**lines[0], "id": "x"}, *lines[1:]])
    statistics, missing = compare()
    assert set(statistics) == {"b"}
    assert [(entry.dataset, why) for entry, why in missing] == [
        ("a", "it holds other samples than the unpruned run"),
        ("group", "not all of its tasks have them"),
    ]


def test_a_group_without_its_baseline_is_reported_once(
    make_scored: Any, compare: Any, tmp_path: Path
) -> None:
    metric = MultipleChoiceMetrics()
    sides = {name: [letters(text, task=name) for text in ("11", "10")] for name in "ab"}
    make_group(make_scored, {name: (metric, *both) for name, both in sides.items()})
    (tmp_path / "none/predictions.jsonl").unlink()
    statistics, ((entry, why),) = compare()
    assert statistics == {}
    assert entry.dataset == "group"
    assert why == "unpruned run: predictions.jsonl is missing"


def test_a_group_must_be_the_mean_of_its_tasks(
    make_scored: Any, compare: Any, tmp_path: Path
) -> None:
    metric = MultipleChoiceMetrics()
    sides = {name: [letters(text, task=name) for text in ("11", "10")] for name in "ab"}
    make_group(make_scored, {name: (metric, *both) for name, both in sides.items()})
    file = tmp_path / "none/metrics.json"
    file.write_text(file.read_text().replace('"value": 1.0', '"value": 0.9'))
    statistics, missing = compare()
    assert set(statistics) == {"a", "b"}
    assert [why for _, why in missing] == ["its accuracy is not the mean of its tasks"]
