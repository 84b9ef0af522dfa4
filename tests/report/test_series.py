"""Which runs make a line, and what lines look like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ivcp.report.runs import Run, find_runs
from ivcp.report.series import CONTROLS, by_ratio, height, make_series, points


@pytest.fixture
def runs(make_run: Any, tmp_path: Path) -> list[Run]:
    number = 0
    for pruner, layer in (("none", None), ("random", 4), ("fastv", 2), ("fastv", 4)):
        for ratio in (0.5, 0.1):
            number += 1
            make_run(f"{number}", pruner=pruner, value=ratio + 0.2, ratio=ratio, layer=layer)
    return find_runs([tmp_path])[0]


def test_layers_are_separate_lines_in_one_colour(runs: list[Run]) -> None:
    series = make_series(runs)
    assert [s.label for s in series.values()] == [
        "fastv @ layer 2",
        "fastv @ layer 4",
        "random @ layer 4",
    ]
    first, second, control = series.values()
    assert first.color == second.color
    assert (first.line, second.line, control.line) == ("--", "-", "-")  # the frequent one is solid
    assert (control.color, control.marker, control.control) == (*CONTROLS["random"], True)


def test_variants_look_different_and_a_control_with_some_is_not_grey(
    make_run: Any, tmp_path: Path
) -> None:
    for number in range(20):
        for pruner in ("ivcp", "random"):
            make_run(f"{pruner}{number:02}", pruner=pruner, value=0.5)
    runs = find_runs([tmp_path])[0]
    runs = [replace(run, variant=f"share={place % 20}") for place, run in enumerate(runs)]
    series = make_series(runs).values()
    assert len({(s.color, s.marker) for s in series}) == len(series) == 40
    assert {s.line for s in series} == {"-"}


def test_points_are_joined_by_ratio_whatever_they_cost(make_run: Any, tmp_path: Path) -> None:
    for ratio, value in ((0.5, 0.9), (0.1, 0.2), (0.3, 0.6)):
        make_run(f"{ratio}", pruner="random", value=value, ratio=ratio)
    cost = {0.1: 3.0, 0.3: 1.0, 0.5: 2.0}
    found = points(find_runs([tmp_path])[0], lambda r: cost[r.ratio], height, lambda r: r.ratio)
    assert [point[:2] for point in found] == [(3.0, 20.0), (1.0, 60.0), (2.0, 90.0)]


def test_ratios_are_lines_where_layers_are_places(runs: list[Run]) -> None:
    labels = [s.label for s in make_series(runs, by_ratio, "at").values()]
    assert labels == ["fastv at 0.1", "fastv at 0.5", "random at 0.1", "random at 0.5"]


def test_one_layer_needs_no_mention_and_two_models_do(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="fastv", value=0.5, layer=4)
    make_run("b", pruner="ivcp", value=0.5, layer=4)
    runs, _ = find_runs([tmp_path])
    assert [s.label for s in make_series(runs).values()] == ["fastv", "ivcp"]
    make_run("c", pruner="ivcp", value=0.5, layer=4, model="big")
    runs, _ = find_runs([tmp_path])
    labels = [s.label for s in make_series(runs).values()]
    assert labels == ["fastv (tiny)", "ivcp (big)", "ivcp (tiny)"]


def test_many_pruners_look_different(make_run: Any, tmp_path: Path) -> None:
    for number in range(12):
        make_run(f"{number}", pruner=f"p{number:02}", value=0.5)
    looks = {(s.color, s.marker) for s in make_series(find_runs([tmp_path])[0]).values()}
    assert len(looks) == 12


def test_runs_of_one_ratio_are_one_point(make_run: Any, tmp_path: Path) -> None:
    for number, value in enumerate((0.2, 0.4)):
        make_run(f"{number}", pruner="random", value=value, ratio=0.5)
    make_run("low", pruner="random", value=0.1, ratio=0.25)
    make_run("failed", pruner="random", value=float("nan"), ratio=0.1)
    runs, _ = find_runs([tmp_path])
    found = points(runs, lambda run: run.keep_ratio, height, lambda run: run.ratio)
    assert found == [pytest.approx((0.25, 10, 10, 10)), pytest.approx((0.5, 30, 20, 40))]
