"""Farthest-point sampling, compared with a plain restatement in exact fractions."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
import torch
from given import given_view

from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.plain_view import PlainView
from ivcp.core.selection import budget
from ivcp.core.spread import spread_tokens
from ivcp.pruners.farthest import FarthestPoint

THIRD = 1 / 3
TILES = [  # two by three tiles and a thumbnail in front
    Grid(0, 4, 3, "thumbnail"),
    *(
        Grid(0, 4, 5, "tile", area=(c * THIRD, r / 2, (c + 1) * THIRD, (r + 1) / 2))
        for r in range(2)
        for c in range(3)
    ),
]
LAYOUTS = {
    "square": [Grid(0, 6, 6)],
    "wide": [Grid(0, 5, 11)],
    "row": [Grid(0, 1, 9)],
    "padded": [Grid(0, 7, 7, area=(-0.21, 0.0, 1.21, 1.0))],
    "tiles": TILES,
    "padded tiles": [
        Grid(0, 6, 6, "tile", area=(-0.17, 0.0, 0.5, 1.0)),
        Grid(0, 6, 6, "tile", area=(0.5, 0.0, 1.17, 1.0)),
        Grid(0, 6, 6, "thumbnail", area=(0.0, -0.3, 1.0, 1.3)),
    ],
    "frames": [Grid(0, 3, 4, "frame") for _ in range(4)],
    "the same tile twice": [Grid(0, 4, 4, "tile"), Grid(0, 4, 4, "tile")],
}


def view_of(grids: list[Grid]) -> PlainView:
    view = given_view(*((grid.rows, grid.columns) for grid in grids))
    start, placed = 3, []
    for grid in grids:
        placed.append(Grid(start, grid.rows, grid.columns, grid.kind, area=grid.area))
        start += grid.length
    view.image = ImageLayout(tuple(placed))
    return view


def points(name: str, number: int, grid: Grid) -> list[tuple[Fraction, Fraction]]:
    """Places of a grid's tokens, a token wide, from the corner of what is sampled together."""
    left = {"tiles": 5 * ((number - 1) % 3), "padded tiles": 6 * number}.get(name, 0)
    above = 4 * ((number - 1) // 3) if name == "tiles" else 0
    if grid.kind == "thumbnail":
        left = above = 0
    half = Fraction(1, 2)
    return [
        (left + column + half, above + row + half)
        for row in range(grid.rows)
        for column in range(grid.columns)
    ]


def taken(places: list[tuple[Fraction, Fraction]], count: int) -> list[int]:
    def apart(a: tuple[Fraction, Fraction], b: tuple[Fraction, Fraction]) -> Fraction:
        return (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2

    middle = tuple(
        Fraction(1, 2) * (min(p[axis] for p in places) + max(p[axis] for p in places))
        for axis in (0, 1)
    )
    chosen: list[int] = []
    while len(chosen) < count:
        free = [n for n in range(len(places)) if n not in chosen]
        if not chosen:
            chosen.append(min(free, key=lambda n: (apart(places[n], middle), n)))
            continue
        nearest = {n: min(apart(places[n], places[c]) for c in chosen) for n in free}
        chosen.append(max(free, key=lambda n: (nearest[n], -n)))
    return chosen


def restated(name: str, grids: list[Grid], target: int) -> list[int]:
    """Kept tokens: tiles together, all else apart, in order of their first token."""
    joined = [n for n, grid in enumerate(grids) if grid.kind in ("image", "tile")]
    parts = [[n] for n, grid in enumerate(grids) if n not in joined]
    parts = sorted([joined, *parts] if joined else parts)
    starts = [sum(grid.length for grid in grids[:n]) for n in range(len(grids))]
    total, seen, keep = sum(grid.length for grid in grids), 0, []
    for part in parts:
        before = target * seen // total
        tokens = [starts[n] + k for n in part for k in range(grids[n].length)]
        seen += len(tokens)
        places = [place for n in part for place in points(name, n, grids[n])]
        keep += [tokens[k] for k in taken(places, target * seen // total - before)]
    return sorted(keep)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.3, 0.55, 0.9])
def test_it_is_the_farthest_token_each_time(name: str, ratio: float) -> None:
    view = view_of(LAYOUTS[name])
    target = budget(ratio, view.image.length)
    keep = FarthestPoint(keep_ratio=ratio).select(view, 0).keep.tolist()
    assert keep == restated(name, LAYOUTS[name], target)
    assert len(keep) == target


def test_it_reaches_the_corners_after_the_middle() -> None:
    keep = FarthestPoint(keep_ratio=5 / 49).select(view_of([Grid(0, 7, 7)]), 0).keep
    assert keep.tolist() == [0, 6, 24, 42, 48]


def test_frames_share_the_budget_alike() -> None:
    keep = FarthestPoint(keep_ratio=0.5).select(view_of(LAYOUTS["frames"]), 0).keep
    assert torch.bincount(keep // 12).tolist() == [6] * 4


def test_tiles_do_not_crowd_along_their_seams() -> None:
    """Sampled together, no two kept tokens are neighbours; each tile for itself, some are."""
    grids = [Grid(0, 6, 6, "tile", area=(0, 0, 0.5, 1)), Grid(0, 6, 6, "tile", area=(0.5, 0, 1, 1))]
    keep = FarthestPoint(keep_ratio=0.2).select(view_of(grids), 0).keep.tolist()
    places = [(n % 36 // 6, n % 6 + 6 * (n // 36)) for n in keep]
    assert (
        min(abs(a - c) + abs(b - d) for a, b in places for c, d in places if (a, b) != (c, d)) > 1
    )


def test_images_of_one_layout_share_the_work() -> None:
    spread_tokens.cache_clear()
    grid = Grid(3, 64, 64)
    started = time.perf_counter()
    first = FarthestPoint(keep_ratio=0.5).select(view_of([grid]), 0).keep
    assert time.perf_counter() - started < 2, "4,096 tokens take a fraction of a second"
    again = FarthestPoint(keep_ratio=0.5).select(view_of([Grid(9, 64, 64)]), 0).keep
    assert torch.equal(first, again)
    assert (spread_tokens.cache_info().hits, spread_tokens.cache_info().misses) == (1, 1)
