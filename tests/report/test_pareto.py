"""Lines and points of the plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.ticker import PercentFormatter
from PIL import Image

from ivcp.report.pareto import CONTROLS, PANELS, draw_pareto, make_series, points, save_pareto
from ivcp.report.runs import Run, find_runs


@pytest.fixture
def runs(make_run: Any, tmp_path: Path) -> list[Run]:
    number = 0
    for dataset, headline in (("shapes", "acc@0.5"), ("pope", "f1")):
        for pruner, layer in (("none", None), ("random", 4), ("fastv", 2), ("fastv", 4)):
            for ratio in (0.5, 0.1):
                number += 1
                options = {"dataset": dataset, "headline": headline, "layer": layer}
                make_run(f"{number}", pruner=pruner, value=ratio + 0.2, ratio=ratio, **options)
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
    assert first.line != second.line
    assert (control.color, control.marker) == CONTROLS["random"]


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
    found = points(find_runs([tmp_path])[0], PANELS[0][1])
    assert found == [pytest.approx((25, 10, 10, 10)), pytest.approx((50, 30, 20, 40))]


def test_the_figure_has_a_row_a_dataset_and_the_baseline(runs: list[Run]) -> None:
    figure = draw_pareto(runs)
    assert len(figure.axes) == 4
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["pope", "", "shapes", ""]
    dashed = [line for line in figure.axes[2].lines if line.get_marker() == "None"]
    assert [float(line.get_ydata()[0]) for line in dashed] == pytest.approx([70, 30])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[-1] == "unpruned"
    assert len(names) == 4


def test_points_are_drawn_as_points(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="none", value=1134.7, headline="total", told={"unit": ""})
    make_run("b", pruner="ivcp", value=1000.0, headline="total", told={"unit": ""})
    runs, _ = find_runs([tmp_path])
    assert points(runs[1:], PANELS[0][1]) == [pytest.approx((50, 1000, 1000, 1000))]
    panel = draw_pareto(runs).axes[0]
    assert panel.get_ylabel() == "total (points)"
    assert not isinstance(panel.yaxis.get_major_formatter(), PercentFormatter)
    assert [line.get_ydata()[0] for line in panel.lines] == [1134.7, 1000]


def test_the_legend_fits(make_run: Any, tmp_path: Path) -> None:
    for number in range(8):
        make_run(f"{number}", pruner=f"a_pruner_of_{number}_words", value=0.5, layer=number)
    figure = draw_pareto(find_runs([tmp_path])[0])
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1


def test_the_picture_is_written(make_run: Any, tmp_path: Path) -> None:
    make_run("only", pruner="none", value=0.9)
    save_pareto(find_runs([tmp_path])[0], tmp_path / "pareto.png")
    with Image.open(tmp_path / "pareto.png") as picture:
        assert picture.format == "PNG"
        assert picture.width >= 1200
