"""Costs, lines and points of the plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ivcp.report.figures import MOST_ENTRIES
from ivcp.report.pareto import COSTS, draw_pareto
from ivcp.report.runs import find_runs


def test_each_cost_has_a_panel_with_the_baseline(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="none", value=0.9)
    make_run("b", pruner="random", value=0.5, layer=4)
    make_run("c", pruner="ivcp", value=0.7, layer=4)
    runs, _ = find_runs([tmp_path])
    figure = draw_pareto(runs)
    assert [panel.get_xlabel() for panel in figure.axes] == [cost.label for cost in COSTS]
    places = {cost.label: cost(runs[2]) for cost in COSTS}
    assert list(places.values()) == pytest.approx([50, 60, 1.0, 31])
    for panel in figure.axes:
        dashed = [line for line in panel.lines if line.get_marker() == "None"]
        assert [line.get_ydata()[0] for line in dashed] == pytest.approx([90])
        drawn = {
            line.get_color(): line for line in panel.lines if line.get_marker() not in ("None", "*")
        }
        assert drawn["#9A9A9A"].get_ydata() == pytest.approx([50])  # the control is grey
        assert drawn["#0072B2"].get_xdata() == pytest.approx([places[panel.get_xlabel()]])
    stars = [[line for line in p.lines if line.get_marker() == "*"] for p in figure.axes]
    assert [len(star) for star in stars] == [0, 0, 1, 1]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["ivcp", "random", "unpruned"]


def test_a_cost_that_is_not_known_leaves_its_panel_empty(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="ivcp", value=0.7)
    (run,), _ = find_runs([tmp_path])
    object.__setattr__(run, "kv_cache_bytes", None)
    assert [len(panel.lines) for panel in draw_pareto([run]).axes] == [1, 1, 0, 1]


def test_points_are_drawn_as_points(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="none", value=1134.7, primary_metric="total", told={"unit": ""})
    make_run("b", pruner="ivcp", value=1000.0, primary_metric="total", told={"unit": ""})
    panel = draw_pareto(find_runs([tmp_path])[0]).axes[0]
    assert panel.get_ylabel() == "total (points)"
    assert "%" not in panel.yaxis.get_major_formatter()(1000.0)
    assert "%" in panel.xaxis.get_major_formatter()(50.0)
    assert [line.get_ydata()[0] for line in panel.lines] == [1134.7, 1000]


def test_looks_agree_between_datasets(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="fastv", value=0.5, dataset="pope")
    make_run("b", pruner="ivcp", value=0.5, dataset="shapes")
    runs, _ = find_runs([tmp_path])
    colors = [draw_pareto([run], runs).axes[0].lines[0].get_color() for run in runs]
    assert len(set(colors)) == 2


@pytest.mark.parametrize("layers", [8, 2 * MOST_ENTRIES])
def test_the_legend_fits(make_run: Any, tmp_path: Path, layers: int) -> None:
    for number in range(layers):
        pruner = f"a_pruner_of_{number % 8}_words"
        make_run(f"{number}", pruner=pruner, value=0.5, layer=number // 4)
    figure = draw_pareto(find_runs([tmp_path])[0])
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    label = figure.axes[2].xaxis.label.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert 0 <= box.y0 < box.y1 <= label.y0


def test_a_legend_of_many_names_pruners_and_variants_apart(make_run: Any, tmp_path: Path) -> None:
    for number in range(30):
        make_run(f"{number}", pruner=f"p{number % 5}", value=0.5, layer=number // 5)
    figure = draw_pareto(find_runs([tmp_path])[0])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    pruners, layers = [f"p{n}" for n in range(5)], [f"@ layer {n}" for n in range(6)]
    assert sorted(names) == sorted([*pruners, *layers])
