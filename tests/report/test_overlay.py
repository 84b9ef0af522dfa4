"""Pictures of kept tokens: what colour is where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ivcp.core.selection import ROLES
from ivcp.report.overlay import (
    MARGIN,
    PREDICTED_COLOR,
    ROLE_COLORS,
    TRUE_COLOR,
    draw_overlay,
)

GRAY = Image.new("RGB", (48, 48), (200, 200, 200))


def count(picture: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == color).all(axis=-1).sum())


def photo_top(picture: Image.Image, side: int) -> int:
    """First line of the photo, found by the grid's dark corner cell at its left edge."""
    column = np.asarray(picture)[:, MARGIN + side // 2].sum(axis=-1)
    return int(np.argmax(column < 700))


def test_every_role_has_a_colour() -> None:
    assert set(ROLE_COLORS) == set(ROLES)
    assert len(set(ROLE_COLORS.values())) == len(ROLES)


def test_kept_cells_are_bright_and_in_their_place() -> None:
    picture = draw_overlay(GRAY, rows=4, columns=4, kept=[0, 6, 15], roles=[1, 2, 3])
    pixels = np.asarray(picture).astype(int)
    top, cell = photo_top(picture, 480), 120
    bright = [
        row * 4 + column
        for row in range(4)
        for column in range(4)
        if pixels[top + row * cell + 60, MARGIN + column * cell + 60].sum() > 400
    ]
    assert bright == [0, 6, 15]
    for role in (1, 2, 3):
        assert count(picture, ROLE_COLORS[ROLES[role]]) > 500
    assert count(picture, ROLE_COLORS["kept"]) == 0


def test_small_photos_grow_and_large_ones_shrink() -> None:
    small = draw_overlay(GRAY, rows=2, columns=2, kept=[0])
    assert small.width >= 480
    assert small.mode == "RGB"
    large = draw_overlay(Image.new("L", (4000, 1000)), rows=2, columns=8, kept=[0])
    assert large.width <= 1280 + 2 * MARGIN
    assert large.height < 500
    narrow = draw_overlay(Image.new("RGBA", (5, 400)), rows=40, columns=1, kept=[0])
    assert narrow.width >= 480


def test_boxes_are_drawn_where_they_are() -> None:
    options: dict[str, Any] = {"rows": 2, "columns": 2, "kept": []}
    plain = draw_overlay(GRAY, **options)
    boxed = draw_overlay(GRAY, truth=(12, 12, 36, 36), predicted=(12, 12, 24, 36), **options)
    assert count(plain, TRUE_COLOR) == count(plain, PREDICTED_COLOR) == 0
    top = photo_top(boxed, 480)
    ys, xs = np.nonzero((np.asarray(boxed) == TRUE_COLOR).all(axis=-1))
    photo = ys < top + 480
    assert abs(int(xs[photo].max()) - MARGIN - 360) <= 3
    assert abs(int(ys[photo].max()) - top - 360) <= 3
    dashes, line = count(boxed, PREDICTED_COLOR), 3 * 2 * (120 + 240)
    assert 0.4 * line < dashes < 0.8 * line


def test_boxes_outside_the_photo_are_drawn_along_its_border() -> None:
    options: dict[str, Any] = {"rows": 2, "columns": 2, "kept": [1]}
    wild = draw_overlay(GRAY, truth=(1, 1, 5, 5), predicted=(-900, -900, 9e9, 9e9), **options)
    assert count(wild, PREDICTED_COLOR) > 1000


def test_a_longer_title_makes_room() -> None:
    options: dict[str, Any] = {"rows": 2, "columns": 2, "kept": []}
    heights = [draw_overlay(GRAY, title="word " * words, **options).height for words in (0, 3, 60)]
    assert heights == sorted(set(heights))


def test_the_photo_itself_is_left_alone() -> None:
    image = GRAY.copy()
    ImageDraw.Draw(image).line((0, 0, 40, 40), fill=(1, 2, 3))
    before = image.tobytes()
    draw_overlay(image, rows=2, columns=2, kept=[0], truth=(1, 1, 9, 9))
    assert image.tobytes() == before


@pytest.mark.parametrize(
    ("kept", "roles", "message"),
    [([4], None, "below 2 x 2; got 4"), ([-1], None, "got -1"), ([0, 1], [1], "Expected 2 roles")],
)
def test_misuse_is_told(kept: list[int], roles: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_overlay(GRAY, rows=2, columns=2, kept=kept, roles=roles)
