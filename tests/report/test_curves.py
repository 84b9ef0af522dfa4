"""Curves over ratios and layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ivcp.report.curves import CURVES, draw_curve
from ivcp.report.rows import Row, make_rows
from ivcp.report.runs import find_runs

OVER_RATIO, OVER_LAYER = CURVES


@pytest.fixture
def make_rows_of(make_run: Any, tmp_path: Path) -> Any:
    def make(*methods: tuple[str, float, Any, float], base: float | None = 0.8) -> list[Row]:
        for number, (pruner, ratio, layer, value) in enumerate(methods):
            make_run(f"{number}", pruner=pruner, ratio=ratio, layer=layer, value=value)
        if base is not None:
            make_run("base", pruner="none", value=base)
        return make_rows(find_runs([tmp_path])[0])

    return make


def drawn(figure: Any) -> list[tuple[list[float], list[float]]]:
    lines = (line for line in figure.axes[0].lines if line.get_marker() != "None")
    return [(line.get_xdata(), line.get_ydata()) for line in lines]


def test_scores_over_ratios_are_shares_of_the_unpruned_one(make_rows_of: Any) -> None:
    rows = make_rows_of(("ivcp", 0.5, 4, 0.6), ("ivcp", 0.1, 4, 0.2), ("fastv", 0.5, 4, 0.4))
    figure = draw_curve(rows, OVER_RATIO)
    ((ratios, shares),) = drawn(figure)
    assert (list(ratios), list(shares)) == (pytest.approx([10, 50]), pytest.approx([25, 75]))
    assert figure.axes[0].get_ylabel() == "acc@0.5, of unpruned"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ivcp"]


def test_scores_over_layers_leave_out_several_at_once(make_rows_of: Any) -> None:
    rows = make_rows_of(
        ("ivcp", 0.5, 2, 0.2), ("ivcp", 0.5, 16, 0.6), ("ivcp", 0.5, [2, 6], 0.9),
        ("ivcp", 0.1, 2, 0.1), ("ivcp", 0.1, 16, 0.4), base=None,
    )  # fmt: skip
    figure = draw_curve(rows, OVER_LAYER)
    low, high = drawn(figure)
    assert [list(part) for part in low] == [[2, 16], pytest.approx([10, 40])]
    assert [list(part) for part in high] == [[2, 16], pytest.approx([20, 60])]
    assert figure.axes[0].get_ylabel() == "acc@0.5"


def test_runs_that_do_not_differ_make_no_curve(make_rows_of: Any) -> None:
    rows = make_rows_of(("ivcp", 0.5, 2, 0.2), ("fastv", 0.1, 4, 0.6))
    assert draw_curve(rows, OVER_RATIO) is None
    assert draw_curve(rows, OVER_LAYER) is None
