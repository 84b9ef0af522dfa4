"""Which plots a report has, and their files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ivcp.report import figures
from ivcp.report.figures import stack
from ivcp.report.plots import draw_plots
from ivcp.report.rows import make_rows
from ivcp.report.runs import find_runs


def png(size: tuple[int, int], color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, format="PNG")
    return file.getvalue()


def test_plots_follow_what_runs_differ_in(make_run: Any, tmp_path: Path) -> None:
    make_run("base", pruner="none", value=0.9)
    for ratio in (0.5, 0.1):
        make_run(f"{ratio}", pruner="ivcp", value=ratio, ratio=ratio, layer=4)
    make_run("deep", pruner="ivcp", value=0.3, layer=8)
    make_run("several", pruner="sparsevlm", value=0.3, layer=[2, 6])
    make_run("other", pruner="ivcp", value=0.3, dataset="pope")
    drawn = draw_plots(make_rows(find_runs([tmp_path])[0]), positions=False)
    assert [plot.caption for plot in drawn.plots] == [
        "pope: acc@0.5 against costs",
        "shapes: acc@0.5 against costs",
        "shapes: acc@0.5 over the ratio",
        "shapes: acc@0.5 over the layer",
    ]
    assert list(drawn.files) == ["pareto.png", "ratio.png", "layer.png"]
    assert drawn.problems == [
        "shapes: runs that prune at several layers (2+6) are in no curve over layers."
    ]
    one, two = (Image.open(io.BytesIO(plot.data)).size for plot in drawn.plots[:2])
    whole = Image.open(io.BytesIO(drawn.files["pareto.png"]))
    assert whole.size == (max(one[0], two[0]), one[1] + two[1])
    assert whole.width >= 1200


def test_plots_stand_below_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [png((4, 3), "red"), png((6, 2), "blue")]
    data, missing = stack(parts)
    with Image.open(io.BytesIO(data)) as whole:
        assert (whole.format, whole.size, missing) == ("PNG", (6, 5), 0)
        assert [whole.getpixel(place) for place in ((0, 0), (5, 0), (5, 4))] == [
            (255, 0, 0), (255, 255, 255), (0, 0, 255),
        ]  # fmt: skip
    monkeypatch.setattr(figures, "TALLEST", 4)
    data, missing = stack(parts)
    with Image.open(io.BytesIO(data)) as whole:
        assert (whole.size, missing) == ((4, 3), 1)
