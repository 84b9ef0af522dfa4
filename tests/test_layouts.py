"""Drawings of every family's geometry: all are there, and what they show is right."""

from __future__ import annotations

import pytest

from benchmarks.layouts.draw import GEOMETRIES, HERE, KEEP, keep, main, scene
from ivcp.core.selection import budget


def test_every_drawing_is_there_and_described() -> None:
    page = (HERE / "README.md").read_text(encoding="utf-8")
    assert {path.stem for path in HERE.glob("*.png")} == set(GEOMETRIES)
    for name in GEOMETRIES:
        assert f"]({name}.png)" in page
        assert (HERE / f"{name}.png").stat().st_size < 400_000


@pytest.mark.parametrize(
    ("name", "sizes", "steps"),
    [
        ("llavanext", [(24, 24), (30, 48)], [0, 49]),
        ("internvl", [(16, 16)] * 7, [0] * 7),
        ("smolvlm", [(8, 8)] * 13, [0] * 13),
    ],
)
def test_every_grid_has_the_published_size_and_ivc_tokens(name, sizes, steps) -> None:
    layout, kept, reasons = keep(GEOMETRIES[name], scene())
    assert [(grid.rows, grid.columns) for grid in layout.grids] == sizes
    assert [grid.step for grid in layout.grids] == steps
    assert len(kept) == budget(KEEP, layout.length)
    ivc = {token for token, why in zip(kept.tolist(), reasons, strict=True) if why == "ivc"}
    assert all(ivc & set(grid.tokens.tolist()) for grid in layout.grids)


def test_a_family_is_drawn(tmp_path, capsys) -> None:
    main(["llava15_crop", "--out", str(tmp_path)])
    assert capsys.readouterr().out.startswith("llava15_crop: kept 173 of 576; 70 IVC tokens, 0 on")
    assert [path.name for path in tmp_path.iterdir()] == ["llava15_crop.png"]
