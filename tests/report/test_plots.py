"""Which plots a report has, which points and lines they show, and what these look like."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from ivcp.report import figures, plots
from ivcp.report.comparison import Entry, Interval, Paired
from ivcp.report.figures import (
    CONTROLS,
    MOST_ENTRIES,
    MOST_LINES,
    STROKES,
    by_layers,
    by_ratio,
    legend,
    literal,
    make_series,
    stack,
)
from ivcp.report.plots import (
    COSTS,
    LAYER,
    RATIO,
    draw_curve,
    draw_pareto,
    draw_plots,
    height,
    points,
    ratio,
    times_compare,
)
from ivcp.report.variants import Variant


def png(size: tuple[int, int], color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, format="PNG")
    return file.getvalue()


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size


def drawn(figure: Figure | None) -> list[tuple[list[float], list[float]]]:
    assert figure is not None
    lines = (line for line in figure.axes[0].lines if line.get_marker() != "None")
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in lines]


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_plots_follow_what_runs_differ_in(make_run: Any, read_entries: Any) -> None:
    make_run("base", pruner="none", value=0.9)
    for keep_ratio in (0.5, 0.1):
        make_run(f"{keep_ratio}", pruner="ivcp", value=keep_ratio, ratio=keep_ratio, layers=[4])
    make_run("deep", pruner="ivcp", value=0.3, layers=[8])
    make_run("several", pruner="sparsevlm", value=0.3, layers=[2, 6])
    make_run("twice", pruner="ivcp_two_pass", value=0.3, layers=[0], first_pass=2)
    make_run("other", pruner="ivcp", value=0.3, dataset="pope")
    plots, files, problems = draw_plots(read_entries())
    assert [plot.caption for plot in plots] == [
        "pope: acc@0.5 against costs",
        "shapes: acc@0.5 against costs",
        "shapes: acc@0.5 over the ratio",
        "shapes: acc@0.5 over the layer",
    ]
    names = ("pareto-pope", "pareto-shapes", "ratio-shapes", "layer-shapes")
    alone = [f"figures/{name}.{kind}" for name in names for kind in ("png", "pdf", "svg")]
    assert list(files) == ["pareto.png", "ratio.png", "layer.png", *alone]
    assert files["figures/pareto-pope.pdf"].startswith(b"%PDF")
    assert b"<svg" in files["figures/pareto-pope.svg"]
    assert problems[:2] == [
        "shapes: runs that prune at several layers (2+6) are in no curve over layers.",
        "shapes: runs that prune before layer 0 after a first pass (0 after 2) are in no curve "
        "over layers.",
    ]
    upper, lower = (size_of(plot.data) for plot in plots[:2])
    width, height = size_of(files["pareto.png"])
    assert (width, height) == (max(upper[0], lower[0]), upper[1] + lower[1])
    assert width >= 1200


def test_a_sweep_over_the_pruners_own_ratio_has_a_point_each(
    make_run: Any, read_entries: Any
) -> None:
    """`pruner.keep_ratio=0.5,0.3,0.1` on the command line leaves its `ratio` as it was."""
    make_run("none", pruner="none", value=0.9, config={"ratio": 0.5})
    for keep_ratio in (0.5, 0.3, 0.1):
        config = {"ratio": 0.5, "pruner": {"keep_ratio": keep_ratio}}
        make_run(f"{keep_ratio}", pruner="ivcp", value=keep_ratio, ratio=keep_ratio, config=config)
    entries = read_entries()
    ratios, scores = pytest.approx([10, 30, 50]), pytest.approx([10, 30, 50])
    assert drawn(draw_pareto(entries)) == [(ratios, scores)]
    shares = pytest.approx([100 / 9, 100 / 3, 500 / 9])
    assert drawn(draw_curve(entries, RATIO, by_layers)) == [(ratios, shares)]


def test_each_cost_has_a_panel_with_the_baseline(make_run: Any, read_entries: Any) -> None:
    make_run("a", pruner="none", value=0.9)
    make_run("b", pruner="random", value=0.5, layers=[4])
    make_run("c", pruner="ivcp", value=0.7, layers=[4])
    entries = read_entries()
    figure = draw_pareto(entries)
    assert [panel.get_xlabel() for panel in figure.axes] == [cost.label for cost in COSTS]
    costs = {cost.label: cost.measure(entries[1]) for cost in COSTS}
    assert list(costs.values()) == pytest.approx([50, 60, 1.0, 31])
    for panel in figure.axes:
        dashed = [line for line in panel.lines if line.get_marker() == "None"]
        assert [line.get_ydata()[0] for line in dashed] == pytest.approx([90])
        lines = {
            line.get_color(): line for line in panel.lines if line.get_marker() not in ("None", "*")
        }
        assert lines["#9A9A9A"].get_ydata() == pytest.approx([50])  # the control is grey
        assert lines["#0072B2"].get_xdata() == pytest.approx([costs[panel.get_xlabel()]])
    stars = [[line for line in p.lines if line.get_marker() == "*"] for p in figure.axes]
    assert [len(star) for star in stars] == [0, 0, 1, 1]
    assert legend_of(figure) == ["IVC-Prune", "Random", "unpruned"]


def test_a_cost_that_is_not_known_leaves_its_panel_empty(make_run: Any, read_entries: Any) -> None:
    make_run("a", pruner="ivcp", value=0.7)
    (entry,) = read_entries()
    unknown = entry.efficiency.model_copy(update={"kv_cache_bytes": None})
    figure = draw_pareto([replace(entry, efficiency=unknown)])
    assert [len(panel.lines) for panel in figure.axes] == [1, 1, 0, 1]


def test_points_are_drawn_as_points(make_run: Any, read_entries: Any) -> None:
    options: dict[str, Any] = {"primary_metric": "total", "metric": {"unit": ""}}
    make_run("a", pruner="none", value=1134.7, **options)
    make_run("b", pruner="ivcp", value=1000.0, **options)
    panel = draw_pareto(read_entries()).axes[0]
    assert panel.get_ylabel() == "total (points)"
    assert "%" not in panel.yaxis.get_major_formatter()(1000.0)
    assert "%" in panel.xaxis.get_major_formatter()(50.0)
    assert [line.get_ydata()[0] for line in panel.lines] == [1134.7, 1000]


def test_no_number_is_too_large_to_leave_out(make_run: Any, read_entries: Any) -> None:
    for name, value in (("a", 1e308), ("b", 0.5)):
        make_run(name, pruner="ivcp", value=value, ratio=value, layers=[4])
    entries = read_entries()
    assert drawn(draw_pareto(entries)) == [([50], [50])]
    assert len(draw_plots(entries)[0]) == 1


@pytest.fixture
def make_entries_of(make_run: Any, read_entries: Any) -> Any:
    def make(
        *methods: tuple[str, float, list[int], float], base: float | None = 0.8
    ) -> list[Entry]:
        for number, (pruner, keep_ratio, layers, value) in enumerate(methods):
            make_run(f"{number}", pruner=pruner, ratio=keep_ratio, layers=layers, value=value)
        if base is not None:
            make_run("base", pruner="none", value=base)
        return read_entries()

    return make


def test_scores_over_ratios_are_in_percent_of_the_unpruned_one(make_entries_of: Any) -> None:
    entries = make_entries_of(
        ("ivcp", 0.5, [4], 0.6), ("ivcp", 0.1, [4], 0.2), ("fastv", 0.5, [4], 0.4)
    )
    figure = draw_curve(entries, RATIO, by_layers)
    assert drawn(figure) == [(pytest.approx([10, 50]), pytest.approx([25, 75]))]
    assert figure.axes[0].get_ylabel() == "acc@0.5, of unpruned"
    assert legend_of(figure) == ["IVC-Prune"]


def test_scores_over_layers_leave_out_several_at_once(make_entries_of: Any) -> None:
    entries = make_entries_of(
        ("ivcp", 0.5, [2], 0.2), ("ivcp", 0.5, [16], 0.6), ("ivcp", 0.5, [2, 6], 0.9),
        ("ivcp", 0.1, [2], 0.1), ("ivcp", 0.1, [16], 0.4), base=None,
    )  # fmt: skip
    figure = draw_curve(entries, LAYER, by_ratio)
    low, high = drawn(figure)
    assert low == ([2, 16], pytest.approx([10, 40]))
    assert high == ([2, 16], pytest.approx([20, 60]))
    assert figure.axes[0].get_ylabel() == "acc@0.5"


def test_runs_that_do_not_differ_make_no_curve(make_entries_of: Any) -> None:
    entries = make_entries_of(("ivcp", 0.5, [2], 0.2), ("fastv", 0.1, [4], 0.6))
    assert draw_curve(entries, RATIO, by_layers) is None
    assert draw_curve(entries, LAYER, by_ratio) is None


def test_looks_agree_between_datasets(make_run: Any, read_entries: Any) -> None:
    make_run("a", pruner="fastv", value=0.5, dataset="pope")
    make_run("b", pruner="ivcp", value=0.5, dataset="shapes")
    entries = read_entries()
    colors = [draw_pareto([entry], entries).axes[0].lines[0].get_color() for entry in entries]
    assert len(set(colors)) == 2


@pytest.mark.parametrize("layers", [8, 2 * MOST_LINES])
def test_the_legend_fits(make_run: Any, read_entries: Any, layers: int) -> None:
    for number in range(layers):
        pruner = f"a_pruner_of_{number % 8}_words"
        make_run(f"{number}", pruner=pruner, value=0.5, layers=[number // 4])
    figure = draw_pareto(read_entries())
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    label = figure.axes[2].xaxis.label.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert 0 <= box.y0 < box.y1 <= label.y0


def test_a_legend_of_many_names_pruners_and_layers_apart(make_run: Any, read_entries: Any) -> None:
    for number in range(30):
        make_run(f"{number}", pruner=f"p{number % 5}", value=0.5, layers=[number // 5])
    pruners, layers = [f"p{n}" for n in range(5)], [f"@ layer {n}" for n in range(6)]
    assert sorted(legend_of(draw_pareto(read_entries()))) == sorted([*pruners, *layers])


def test_a_legend_has_an_end(make_run: Any, read_entries: Any) -> None:
    make_run("a", pruner="ivcp", value=0.5)
    (line,) = make_series(read_entries()).values()
    lines = [replace(line, method=f"m{number}") for number in range(MOST_ENTRIES + 60)]
    labels = [str(handle.get_label()) for handle in legend(lines)]
    assert (len(labels), labels[-1]) == (MOST_ENTRIES + 1, "and 60 more")


@pytest.fixture
def several_layers(make_run: Any, read_entries: Any) -> list[Entry]:
    number = 0
    for pruner, layer in (("none", None), ("random", 4), ("fastv", 2), ("fastv", 4)):
        for keep_ratio in (0.5, 0.1):
            number += 1
            layers = [] if layer is None else [layer]
            value = keep_ratio + 0.2
            make_run(f"{number}", pruner=pruner, value=value, ratio=keep_ratio, layers=layers)
    return read_entries()


def test_layers_are_separate_lines_in_one_colour(several_layers: list[Entry]) -> None:
    series = make_series(several_layers)
    assert [line.label for line in series.values()] == [
        "fastv @ layer 2",
        "fastv @ layer 4",
        "Random @ layer 4",
    ]
    early, late, control = series.values()
    assert early.color == late.color
    assert (early.line, late.line, control.line) == ("--", "-", "-")  # the frequent one is solid
    assert (control.color, control.marker, control.control) == (*CONTROLS["random"], True)


def test_ratios_are_lines_of_a_curve_over_layers(several_layers: list[Entry]) -> None:
    labels = [line.label for line in make_series(several_layers, by_ratio).values()]
    assert labels == ["fastv at 0.1", "fastv at 0.5", "Random at 0.1", "Random at 0.5"]


def test_variants_look_different_and_a_control_with_some_is_not_grey(
    make_run: Any, read_entries: Any
) -> None:
    for number in range(20):
        for pruner in ("ivcp", "random"):
            make_run(f"{pruner}{number:02}", pruner=pruner, value=0.5)
    entries = [
        replace(entry, variant=Variant(f"share={number % 20}"))
        for number, entry in enumerate(read_entries())
    ]
    series = make_series(entries).values()
    assert len({(line.color, line.marker) for line in series}) == len(series) == 40
    assert {line.line for line in series} == {"-"}


def test_runs_with_other_settings_are_other_lines(make_run: Any, read_entries: Any) -> None:
    for prune in (True, False):
        for keep_ratio in (0.5, 0.3):
            config = {"pruner": {"keep_ratio": keep_ratio, "prune_earlier_kv": prune}}
            name = f"{prune}{keep_ratio}"
            make_run(name, pruner="ivcp", value=0.5, ratio=keep_ratio, config=config)
    labels = [line.label for line in make_series(read_entries()).values()]
    assert labels == ["IVC-Prune prune_earlier_kv=false", "IVC-Prune prune_earlier_kv=true"]


def test_one_layer_needs_no_mention_and_two_models_do(make_run: Any, read_entries: Any) -> None:
    make_run("a", pruner="fastv", value=0.5, layers=[4])
    make_run("b", pruner="ivcp", value=0.5, layers=[4])
    assert [line.label for line in make_series(read_entries()).values()] == ["fastv", "IVC-Prune"]
    make_run("c", pruner="ivcp", value=0.5, layers=[4], model="big")
    labels = [line.label for line in make_series(read_entries()).values()]
    assert labels == ["fastv (tiny)", "IVC-Prune (big)", "IVC-Prune (tiny)"]


def test_many_pruners_look_different(make_run: Any, read_entries: Any) -> None:
    for number in range(12):
        make_run(f"{number}", pruner=f"p{number:02}", value=0.5)
    looks = {(line.color, line.marker) for line in make_series(read_entries()).values()}
    assert len(looks) == 12


def test_points_are_joined_by_ratio_whatever_they_cost(make_run: Any, read_entries: Any) -> None:
    for keep_ratio, value in ((0.5, 0.9), (0.1, 0.2), (0.3, 0.6)):
        make_run(f"{keep_ratio}", pruner="random", value=value, ratio=keep_ratio)
    cost = {0.1: 3.0, 0.3: 1.0, 0.5: 2.0}
    line = points(read_entries(), lambda entry: cost[entry.ratio or 0], height, ratio)
    assert [point[:2] for point in line] == [(3.0, 20.0), (1.0, 60.0), (2.0, 90.0)]


def test_runs_of_one_ratio_are_one_point(make_run: Any, read_entries: Any) -> None:
    for number, value in enumerate((0.2, 0.4)):
        make_run(f"{number}", pruner="random", value=value, ratio=0.5)
    make_run("low", pruner="random", value=0.1, ratio=0.25)
    make_run("failed", pruner="random", value=None, ratio=0.1)
    line = points(read_entries(), COSTS[0].measure, height, ratio)
    assert [point[:4] for point in line] == [
        pytest.approx((25, 10, 10, 10)), pytest.approx((50, 30, 20, 40))
    ]  # fmt: skip
    assert [point.repeats for point in line] == [False, True]


def test_names_are_short_text_and_no_formulas() -> None:
    assert literal("$a$\n\x1b[31m") == "\\$a\\$ "
    assert len(literal("a" * 1000)) < 100


def test_plots_stand_below_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [png((4, 3), "red"), png((6, 2), "blue")]
    data, missing = stack(parts)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, missing) == ("PNG", (6, 5), 0)
        assert [image.getpixel(at) for at in ((0, 0), (5, 0), (5, 4))] == [
            (255, 0, 0), (255, 255, 255), (0, 0, 255),
        ]  # fmt: skip
    monkeypatch.setattr(figures, "TALLEST", 4)
    data, missing = stack(parts)
    assert (size_of(data), missing) == ((4, 3), 1)


def test_the_stroke_of_a_run_is_the_interval_of_its_difference(
    make_run: Any, read_entries: Any
) -> None:
    make_run("a", pruner="none", value=0.9)
    make_run("b", pruner="ivcp", value=0.7)
    entries = read_entries()
    paired = Paired(difference=Interval(-0.3, -0.1), relative=Interval(0.6, 0.9))
    entries[1] = replace(entries[1], paired=paired)
    figure = draw_pareto(entries)
    ((x, low), (_, high)) = figure.axes[0].collections[0].get_segments()[0]
    assert (x, low, high) == pytest.approx((50, 60, 80))
    assert legend_of(figure)[-1] == STROKES[False]
    assert legend_of(draw_pareto([*entries[:1], replace(entries[1], paired=Paired())]))[-1] == (
        "unpruned"
    )


def test_times_of_runs_that_were_not_paired_have_no_panel(make_run: Any, read_entries: Any) -> None:
    make_run("none", pruner="none", value=0.9)
    make_run("sweep/b", pruner="ivcp", value=0.7)
    entries = read_entries()
    assert not times_compare(entries)
    labels = [panel.get_xlabel() for panel in draw_pareto(entries, timed=False).axes]
    assert labels == [cost.label for cost in COSTS[:-1]]
    _, _, problems = draw_plots(entries)
    assert "shapes: no panel of times, since the runs are not of one sweep" in problems[0]


@pytest.mark.parametrize("paired", [True, False])
def test_nothing_overlaps_with_more_than_twenty_methods(
    make_run: Any, read_entries: Any, paired: bool
) -> None:
    make_run("none", pruner="none", value=0.9)
    for number in range(26):
        make_run(f"{number}", pruner=f"a_method_{number}", value=0.5 + number / 100)
    figure = draw_pareto(read_entries(), timed=paired)
    figure.canvas.draw()
    assert len(figure.axes) == (4 if paired else 3)
    assert len(set(legend_of(figure))) == 27
    boxes = [figure.legends[0].get_window_extent()]
    boxes += [panel.xaxis.label.get_window_extent() for panel in figure.axes]
    boxes += [panel.bbox for panel in figure.axes]
    assert all(
        box.x0 >= 0 and box.x1 <= figure.bbox.x1 and 0 <= box.y0 < box.y1 <= figure.bbox.y1
        for box in boxes
    )
    assert not [(a, b) for a, b in combinations(boxes, 2) if Bbox.intersection(a, b) is not None]


def test_files_for_papers_hold_hostile_names_as_text(
    make_run: Any, read_entries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("$\\frac{", "<script>", "猫 🎯", "a" * 500, "../../x")):
        make_run(f"{number}", pruner=name, value=0.5, dataset=name)
    _, files, _ = draw_plots(read_entries())
    names = [name.removeprefix("figures/") for name in files if name.startswith("figures/")]
    assert len(set(names)) == 15
    monkeypatch.setattr(plots, "MOST_RUNS", 4)
    _, files_of_many, (problem, *_) = draw_plots(read_entries())
    assert {name[-3:] for name in files_of_many} == {"png"}
    assert "choose runs with --where" in problem
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,80}\.(png|pdf|svg)", name) for name in names)
    for name, data in files.items():
        if name.endswith(".svg"):
            assert b"<script" not in data
            ElementTree.fromstring(data)
