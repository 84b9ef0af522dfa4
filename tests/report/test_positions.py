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
from ivcp.report.positions import MOST, draw_positions, find_chosen, rotary_scores
from ivcp.report.runs import find_runs
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
        length=layout.length,
        positions=lambda: positions,
        inverse_frequencies=lambda: torch.tensor(FREQUENCIES),
    )
    pruner = IVCOnly(keep_ratio=0.4)
    object.__setattr__(pruner, "target", lambda view: 12)
    return layout.tokens[pruner.select(view, 0).keep].tolist()


@pytest.fixture
def make_chosen(make_run: Any, tmp_path: Path) -> Any:
    def make(name: str = "a", axes: int = 1, images: Any = None, **options: Any) -> Path:
        kept = select(axes)
        line = {
            "id": "s<1>",
            "images": images or [{"grids": [GRID]}],
            "kept": kept,
            "reasons": {"ivc": kept},
        }
        folder = make_run(name, **{"pruner": "ivc", "value": 0.5, **options})
        (folder / "predictions.jsonl").write_text(json.dumps(line) + "\n{torn")
        return folder

    return make


@pytest.mark.parametrize("axes", [1, 3])
def test_ivc_tokens_are_those_with_the_highest_scores(
    make_chosen: Any, tmp_path: Path, axes: int
) -> None:
    make_chosen(axes=axes, rotary={"inverse_frequencies": FREQUENCIES, "axes": axes})
    (chosen,), problems = find_chosen(find_runs([tmp_path])[0])
    assert problems == []
    tokens, scores = chosen.layout.tokens.tolist(), rotary_scores(chosen)
    assert scores is not None
    ranked = [values.sort(descending=True, stable=True).indices.tolist() for values in scores]
    count = next(n for n in range(30) if len({*ranked[0][:n], *ranked[1][:n]}) >= 11)
    best = {tokens[place] for order in ranked for place in order[:count]}
    assert (
        len(best - chosen.reasons.keys()) <= 1
    )  # the last step may offer two tokens for one place
    panel = draw_positions(chosen).axes[0]
    for values, line, marks in zip(scores, panel.lines, panel.collections, strict=False):
        assert line.get_ydata() == pytest.approx(values.tolist())
        height = dict(zip(tokens, values.tolist(), strict=True))
        marked = marks.get_offsets().tolist()
        assert [place for place, _ in marked] == sorted(chosen.reasons)
        assert [y for _, y in marked] == pytest.approx([height[t] for t in sorted(chosen.reasons)])


def test_without_frequencies_roles_stand_alone(make_chosen: Any, tmp_path: Path) -> None:
    make_chosen()
    (chosen,), _ = find_chosen(find_runs([tmp_path])[0])
    assert rotary_scores(chosen) is None
    figure = draw_positions(chosen)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ivc", "dropped"]
    figure.canvas.draw()
    strokes = {
        tuple(round(255 * part) for part in bars.get_facecolor()[0][:3]): len(bars.get_paths())
        for bars in figure.axes[0].collections
    }
    assert strokes == {REASON_COLORS["ivc"]: 12, (217, 217, 217): 18}


def test_positions_of_tiles_are_not_guessed(make_chosen: Any, tmp_path: Path) -> None:
    told = {"inverse_frequencies": FREQUENCIES, "axes": 3}
    tiles = [{"grids": [{**GRID, "kind": "tile"}, {**GRID, "start": 40}]}]
    make_chosen(axes=3, images=tiles, rotary=told)
    (chosen,), _ = find_chosen(find_runs([tmp_path])[0])
    assert rotary_scores(chosen) is None


def test_what_is_left_out_is_said(make_chosen: Any, make_run: Any, tmp_path: Path) -> None:
    for number in range(MOST + 2):
        make_chosen(f"{number}", model=f"m{number}")
    make_chosen("twice", model="m0")
    make_run("none", pruner="none", value=0.5)
    make_run("unread", pruner="ivcp", value=0.5)
    make_chosen("foreign", images=[{"grids": []}], model="foreign")
    chosen, problems = find_chosen(find_runs([tmp_path])[0])
    assert len(chosen) == MOST
    assert problems == [
        "Positions: the predictions of 2 runs could not be read.",
        f"Positions are drawn of the first {MOST} of {MOST + 2} methods.",
    ]
