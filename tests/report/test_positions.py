"""Curves over positions: against the selection of the pruner itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ivcp.core.layout import Grid, ImageLayout
from ivcp.pruners.ivc import IVCOnly
from ivcp.report.kept_tokens import kept_reasons
from ivcp.report.positions import MOST, draw_positions, find_samples, plot_positions
from ivcp.report.rotary_scores import rotary_scores
from ivcp.visualize.panel import REASON_COLORS

START, ROWS, COLUMNS = 7, 6, 5
FREQUENCIES = [10000.0 ** (-2 * n / 16) for n in range(8)]
GRID = {"start": START, "rows": ROWS, "columns": COLUMNS}


def select(axes: int) -> list[int]:
    """Prompt indices that `IVCOnly` keeps, by the library's rule for positions of one image."""
    layout = ImageLayout((Grid(**GRID),))
    positions = layout.tokens[None]
    if axes == 3:
        cells = [(0, row, column) for row in range(ROWS) for column in range(COLUMNS)]
        positions = torch.tensor([[START + part for part in cell] for cell in cells]).T
    view: Any = SimpleNamespace(
        image=layout,
        index=torch.arange(layout.length),
        positions=lambda: positions,
        inverse_frequencies=lambda: torch.tensor(FREQUENCIES),
    )
    pruner = IVCOnly(keep_ratio=0.4)
    object.__setattr__(pruner, "target", lambda view: 12)
    return layout.tokens[pruner.select(view, 0).keep].tolist()


@pytest.fixture
def make_ivc_run(make_run: Any) -> Any:
    """Writes a run whose first prediction holds IVC tokens and whose second line is damaged."""

    def make(name: str = "a", axes: int = 1, grids: Any = None, **options: Any) -> Path:
        kept, grids = select(axes), grids or [GRID]
        line = {
            "index": 0,
            "id": "s<1>",
            "score": 1,
            "visual_tokens": sum(grid["rows"] * grid["columns"] for grid in grids),
            "images": [{"grids": grids}],
            "kept": kept,
            "reasons": {"ivc": kept},
        }
        folder = make_run(name, **{"pruner": "ivc", "value": 0.5, **options})
        (folder / "predictions.jsonl").write_text(json.dumps(line) + "\n{torn")
        return folder

    return make


@pytest.mark.parametrize("axes", [1, 3])
def test_ivc_tokens_are_those_with_the_highest_scores(
    make_ivc_run: Any, read_entries: Any, axes: int
) -> None:
    make_ivc_run(axes=axes, rotary={"inverse_frequencies": FREQUENCIES, "axes": axes})
    ((entry, sample),), problems = find_samples(read_entries())
    assert problems == []
    tokens, scores = sample.images[0].tokens.tolist(), rotary_scores(entry, sample)
    kept = kept_reasons(sample)
    assert scores is not None
    ranked = [values.sort(descending=True, stable=True).indices.tolist() for values in scores]
    count = next(n for n in range(30) if len({*ranked[0][:n], *ranked[1][:n]}) >= 11)
    best = {tokens[index] for order in ranked for index in order[:count]}
    assert len(best - kept.keys()) <= 1  # the last step may offer one token too many
    panel = draw_positions(entry, sample).axes[0]
    for values, line, marks in zip(scores, panel.lines, panel.collections, strict=False):
        assert line.get_ydata() == pytest.approx(values.tolist())
        height = dict(zip(tokens, values.tolist(), strict=True))
        marked = marks.get_offsets().tolist()
        assert [x for x, _ in marked] == sorted(kept)
        assert [y for _, y in marked] == pytest.approx([height[t] for t in sorted(kept)])


def test_without_frequencies_roles_stand_alone(make_ivc_run: Any, read_entries: Any) -> None:
    make_ivc_run()
    ((entry, sample),), _ = find_samples(read_entries())
    assert rotary_scores(entry, sample) is None
    figure = draw_positions(entry, sample)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ivc", "dropped"]
    figure.canvas.draw()
    strokes = {
        tuple(round(255 * part) for part in bars.get_facecolor()[0][:3]): len(bars.get_paths())
        for bars in figure.axes[0].collections
    }
    assert strokes == {REASON_COLORS["ivc"]: 12, (217, 217, 217): 18}


def test_positions_of_tiles_are_not_guessed(make_ivc_run: Any, read_entries: Any) -> None:
    rotary = {"inverse_frequencies": FREQUENCIES, "axes": 3}
    tiles = [{**GRID, "kind": "tile"}, {**GRID, "start": 40}]
    make_ivc_run(axes=3, grids=tiles, rotary=rotary)
    ((entry, sample),), _ = find_samples(read_entries())
    assert rotary_scores(entry, sample) is None


@pytest.mark.parametrize("frequencies", [[1e308] * 8, [0.5] * 10**6])
def test_odd_frequencies_leave_the_roles(
    make_ivc_run: Any, read_entries: Any, frequencies: list[float]
) -> None:
    make_ivc_run(rotary={"inverse_frequencies": frequencies, "axes": 1})
    ((_, caption, _),), problems = plot_positions(read_entries())
    assert caption.endswith("holds no rotary frequencies for V and U")
    assert problems == []


def test_what_is_left_out_is_said(make_ivc_run: Any, make_run: Any, read_entries: Any) -> None:
    for number in range(MOST + 2):
        make_ivc_run(f"{number}", model=f"m{number}")
    make_ivc_run("twice", model="m0")
    make_run("none", pruner="none", value=0.5)
    make_run("unread", pruner="ivcp", value=0.5)
    make_ivc_run("huge", grids=[{**GRID, "rows": 10**6, "columns": 10**6}], model="huge")
    samples, problems = find_samples(read_entries())
    assert len(samples) == MOST
    assert problems == [
        "Positions: the predictions of 2 runs could not be read.",
        f"Positions are drawn of the first {MOST} of {MOST + 2} methods.",
    ]
