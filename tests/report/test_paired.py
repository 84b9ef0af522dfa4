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
from ivcp.report import paired, verdicts
from ivcp.report.comparison import Interval, Paired, Unpaired
from ivcp.report.paired import pair_runs
from ivcp.report.runs import Run, find_runs


class Mistaken(MultipleChoiceMetrics):
    def sufficient_statistics(self, verdicts: pd.DataFrame) -> pd.DataFrame:
        raise ValueError("No\nway")


def letters(rights: str, **labels: str) -> list[ScoredAnswer]:
    return [
        ScoredAnswer("A", "A" if right == "1" else "B", float(right), labels) for right in rights
    ]


def words(count: int, share: float, seed: int, **labels: str) -> list[ScoredAnswer]:
    draw = np.random.default_rng(seed)
    found = []
    for number in range(count):
        truth = "Yes" if number % 2 else "No"
        right = bool(draw.random() < share)
        parsed = truth if right else "No" if number % 2 else "Yes"
        own = {"category": "OCR", "image_path": str(number // 2), **labels}
        found.append(ScoredAnswer(parsed, truth, float(right), own))
    return found


def ends(interval: Interval) -> tuple[float, float]:
    assert interval.low is not None
    assert interval.high is not None
    return interval.low, interval.high


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def rewrite(folder: Path, lines: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "predictions.jsonl").write_text(text)


def found(place: Path) -> tuple[dict[str, Paired], list[Unpaired]]:
    """Statistics by dataset of the only pruned run."""
    known, unknown = pair_runs(find_runs([place])[0])
    return {run.dataset: one for run, one in known.items()}, unknown


@pytest.fixture
def pair(make_judged: Any) -> tuple[Path, Path]:
    """Of twelve answers one is fixed and six are regressed."""
    base = make_judged("none", MultipleChoiceMetrics(), letters("111111110000"), pruner="none")
    run = make_judged("ivcp", MultipleChoiceMetrics(), letters("110000001000"), pruner="ivcp")
    return base, run


@pytest.mark.usefixtures("pair")
def test_a_pair_by_hand(tmp_path: Path) -> None:
    known, unknown = found(tmp_path)
    one = known["shapes"]
    assert (one.fixed, one.regressed) == (1, 6)
    assert one.p == pytest.approx(2 * (1 + 7) / 2**7)
    low, high = ends(one.difference)
    assert low < -5 / 12 < high < 0
    assert not one.significant  # p is 0.125
    assert ends(one.relative)[0] < 3 / 8 < ends(one.relative)[1]
    assert unknown == []
    assert pair_runs(find_runs([tmp_path])[0]) == pair_runs(find_runs([tmp_path])[0])


def test_the_order_of_lines_does_not_matter(pair: tuple[Path, Path], tmp_path: Path) -> None:
    before, _ = found(tmp_path)
    rewrite(pair[1], lines_of(pair[1])[::-1])
    assert found(tmp_path)[0] == before
    renumbered = [{**line, "index": -line["index"]} for line in lines_of(pair[0])]
    rewrite(pair[0], renumbered)
    assert found(tmp_path)[0] == before


def torn(lines: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)[:-20]


def other(lines: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps({**line, "id": f"x{line['id']}"}) for line in lines)


def twice(lines: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps({**line, "id": "x"}) for line in lines)


def unlike(lines: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps({**line, "score": 1.0}) for line in lines)


def unscored(lines: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps({**line, "score": None}) for line in lines)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "predictions.jsonl is missing"),
        (torn, "predictions.jsonl is torn or foreign at line 12"),
        (lambda _: "3\n", "predictions.jsonl is torn or foreign at line 1"),
        (lambda _: "[" * 100_000, "predictions.jsonl is torn or foreign at line 1"),
        (other, "it holds other samples than the unpruned run"),
        (twice, "predictions.jsonl holds the sample x twice"),
        (unlike, "predictions.jsonl gives another accuracy than metrics.json tells"),
        (unscored, "predictions.jsonl gives another accuracy than metrics.json tells"),
    ],
)
def test_broken_predictions_are_told(
    pair: tuple[Path, Path],
    tmp_path: Path,
    side: int,
    change: Callable[[list[dict[str, Any]]], str] | None,
    reason: str,
) -> None:
    file = pair[side] / "predictions.jsonl"
    text = change(lines_of(pair[side])) if change else None
    file.unlink()
    if text is not None:
        file.write_text(text)
    known, (unknown,) = found(tmp_path)
    assert known == {}
    assert unknown.run.pruner == "ivcp"
    assert reason in unknown.reason
    about = "unpruned run: " if side == 0 and "other samples" not in reason else ""
    assert unknown.reason.startswith(about)


def test_a_sample_less_is_told(pair: tuple[Path, Path], tmp_path: Path) -> None:
    lines = lines_of(pair[1])
    rewrite(pair[1], lines[1:])
    assert found(tmp_path)[1][0].reason == "it holds other samples than the unpruned run"
    rewrite(pair[1], lines)
    rewrite(pair[0], lines_of(pair[0])[1:])
    assert "unpruned run: predictions.jsonl gives another" in found(tmp_path)[1][0].reason


def test_a_metric_sees_samples_in_dataset_order(make_judged: Any, tmp_path: Path) -> None:
    """Of three questions about an image MME pairs the first two."""
    for pruner, rights in (("none", "110"), ("ivcp", "100")):
        told = letters(rights, category="OCR", image_path="a")
        folder = make_judged(pruner, MmeMetrics(), told, pruner=pruner)
        rewrite(folder, lines_of(folder)[::-1])
    known, unknown = found(tmp_path)
    assert unknown == []
    assert ends(known["shapes"].difference) == pytest.approx((-400 / 3, -400 / 3))


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("", "metrics.json names no metric"),
        ("nowhere.Metric", "nowhere.Metric is no metric"),
        ("json.JSONDecoder", "json.JSONDecoder is no metric"),
        (f"{__name__}.Mistaken", "cannot count predictions.jsonl again (No way)"),
        ("ivcp.metrics.yes_no.YesNoMetrics", "gives another accuracy than metrics.json tells"),
    ],
)
def test_a_foreign_metric_is_told(
    pair: tuple[Path, Path],
    tmp_path: Path,
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
    known, (unknown,) = found(tmp_path)
    assert known == {}
    assert reason in unknown.reason


def test_units_must_be_the_same(make_judged: Any, tmp_path: Path) -> None:
    def rotations(shift: int) -> list[ScoredAnswer]:
        return [
            replace(one, labels={"index": str(number + (number % 2) * (1_000_000 - shift))})
            for number, one in enumerate(letters("1111"))
        ]

    make_judged("a", CircularMetrics(), rotations(1), pruner="none")
    make_judged("b", CircularMetrics(), rotations(0), pruner="ivcp")
    known, (unknown,) = found(tmp_path)
    assert known == {}
    assert "counted in another way" in unknown.reason


@pytest.mark.parametrize("metric", [MmeMetrics(), YesNoMetrics()], ids=["points", "f1"])
def test_primary_metrics_that_are_no_means(make_judged: Any, tmp_path: Path, metric: Any) -> None:
    make_judged("a", metric, words(200, 0.9, 1), pruner="none")
    make_judged("b", metric, words(200, 0.6, 2), pruner="ivcp")
    base, run = (float(run.value or 0) for run in find_runs([tmp_path])[0])
    one = found(tmp_path)[0]["shapes"]
    (low, high), (least, most) = ends(one.difference), ends(one.relative)
    assert low < run - base < high < 0
    assert least < run / base < most < 1
    assert high - low < 0.25 * metric.highest


def test_a_baseline_is_read_once(
    make_judged: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = MultipleChoiceMetrics()
    make_judged("a", metric, letters("1101"), pruner="none")
    for name in "bcd":
        make_judged(name, metric, letters("1001"), pruner="ivcp")
    read = []

    def counted(run: Run) -> Any:
        read.append(run.folder.name)
        return verdicts.read_lines(run)

    monkeypatch.setattr(paired, "read_lines", counted)
    known, _ = pair_runs(find_runs([tmp_path])[0])
    assert len(known) == 3
    assert sorted(read) == ["a", "b", "c", "d"]


def test_no_baseline_is_nothing_to_tell(make_judged: Any, tmp_path: Path) -> None:
    make_judged("b", MultipleChoiceMetrics(), letters("1001"), pruner="ivcp")
    make_judged("a", MultipleChoiceMetrics(), letters("1001"), pruner="none", dataset="pope")
    assert found(tmp_path) == ({}, [])


def make_suite(make_judged: Any, sets: dict[str, Any]) -> None:
    """A baseline and a run; each set has a metric and the verdicts of both."""
    group = GroupMetrics({name: {"metric": metric} for name, (metric, *_) in sets.items()})
    for place, pruner in enumerate(("none", "ivcp"), 1):
        answers = [one for own in sets.values() for one in own[place]]
        make_judged(pruner, group, answers, pruner=pruner, dataset="group")


def test_members_have_statistics_of_their_own(make_judged: Any, tmp_path: Path) -> None:
    one = letters("11111111", task="a"), letters("00000011", task="a")
    two = letters("0000", task="b"), letters("0100", task="b")
    metric = MultipleChoiceMetrics()
    make_suite(make_judged, {"a": (metric, *one), "b": (metric, *two)})
    known, unknown = found(tmp_path)
    assert unknown == []
    assert (known["a"].fixed, known["a"].regressed) == (0, 6)
    assert (known["b"].fixed, known["b"].regressed) == (1, 0)
    assert (known["group"].fixed, known["group"].regressed) == (1, 6)
    assert known["group"].p == pytest.approx(16 / 128)
    assert known["a"].significant
    assert known["b"].relative.low is None
    assert not known["b"].significant


def test_the_draws_of_members_are_independent(make_judged: Any, tmp_path: Path) -> None:
    """The mean of two independent differences varies less than each of them, by root 2."""
    draw = np.random.default_rng(0)
    texts = ["".join(map(str, row)) for row in draw.integers(0, 2, (2, 300))]
    metric = MultipleChoiceMetrics()
    sides = {name: [letters(text, task=name) for text in texts] for name in "ab"}
    make_suite(make_judged, {name: (metric, *own) for name, own in sides.items()})
    known, _ = found(tmp_path)
    a, b, whole = (np.ptp(ends(known[name].difference)) for name in ("a", "b", "group"))
    assert whole == pytest.approx((a + b) / 2 / 2**0.5, rel=0.1)


def test_points_count_as_fractions_in_an_average(make_judged: Any, tmp_path: Path) -> None:
    mme = words(100, 0.9, 1, task="mme"), words(100, 0.7, 2, task="mme")
    flat = letters("1" * 50, task="flat"), letters("1" * 50, task="flat")
    make_suite(make_judged, {"mme": (MmeMetrics(), *mme), "flat": (MultipleChoiceMetrics(), *flat)})
    known, unknown = found(tmp_path)
    assert unknown == []
    own = np.array(ends(known["mme"].difference))
    assert ends(known["group"].difference) == pytest.approx(own / 2800 / 2)
    assert ends(known["flat"].difference) == (0, 0)


def test_a_member_that_fails_leaves_the_others(make_judged: Any, tmp_path: Path) -> None:
    metric = MultipleChoiceMetrics()
    sides = {name: [letters(text, task=name) for text in ("11", "10")] for name in "ab"}
    make_suite(make_judged, {name: (metric, *own) for name, own in sides.items()})
    lines = lines_of(tmp_path / "ivcp")
    rewrite(tmp_path / "ivcp", [{**lines[0], "id": "x"}, *lines[1:]])
    known, unknown = found(tmp_path)
    assert set(known) == {"b"}
    assert [(one.run.dataset, one.reason) for one in unknown] == [
        ("a", "it holds other samples than the unpruned run"),
        ("group", "not all of its sets have them"),
    ]


def test_a_suite_without_its_baseline_is_told_once(make_judged: Any, tmp_path: Path) -> None:
    metric = MultipleChoiceMetrics()
    sides = {name: [letters(text, task=name) for text in ("11", "10")] for name in "ab"}
    make_suite(make_judged, {name: (metric, *own) for name, own in sides.items()})
    (tmp_path / "none/predictions.jsonl").unlink()
    known, (unknown,) = found(tmp_path)
    assert known == {}
    assert unknown.run.dataset == "group"
    assert unknown.reason == "unpruned run: predictions.jsonl is missing"


def test_a_suite_must_be_the_mean_of_its_sets(make_judged: Any, tmp_path: Path) -> None:
    metric = MultipleChoiceMetrics()
    sides = {name: [letters(text, task=name) for text in ("11", "10")] for name in "ab"}
    make_suite(make_judged, {name: (metric, *own) for name, own in sides.items()})
    file = tmp_path / "none/metrics.json"
    file.write_text(file.read_text().replace('"value": 1.0', '"value": 0.9'))
    known, unknown = found(tmp_path)
    assert set(known) == {"a", "b"}
    assert [one.reason for one in unknown] == ["its accuracy is not the mean of its sets"]
