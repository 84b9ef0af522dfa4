"""Pictures of kept tokens: what colour is where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ivcp.core.layout import Grid, ImageLayout
from ivcp.visualize.overlay import CAPTION, MARGIN, UNSEEN, draw_overlay
from ivcp.visualize.panel import (
    BORDER,
    HATCH,
    MORE_COLORS,
    PREDICTED_COLOR,
    REASON_COLORS,
    TRUE_COLOR,
    draw_panel,
    enlargement,
    reason_color,
)

GRAY = Image.new("RGB", (48, 48), (200, 200, 200))
WIDE = Image.new("RGB", (48, 24), (250, 20, 20))
FOUR = ImageLayout((Grid(0, 2, 2),))
TILES = (
    Grid(5, 2, 2, "tile", area=(0.0, 0.0, 0.5, 1.0)),
    Grid(9, 2, 2, "tile", area=(0.5, 0.0, 1.0, 1.0)),
)
THUMBNAIL = Grid(13, 2, 2, "thumbnail")


def count(picture: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == color).all(axis=-1).sum())


def bright(panel: Image.Image, rows: int, columns: int) -> list[tuple[int, int]]:
    """(row, column) of the cells of a panel whose middle is bright."""
    pixels = np.asarray(panel).astype(int)
    high, wide = panel.height / rows, panel.width / columns
    return [
        (row, column)
        for row in range(rows)
        for column in range(columns)
        if pixels[int((row + 0.5) * high), int((column + 0.5) * wide)].max() > 150
    ]


def photo_top(picture: Image.Image, side: int) -> int:
    """First line of the photo, found by the grid's dark corner cell at its left edge."""
    column = np.asarray(picture)[:, MARGIN + side // 2].sum(axis=-1)
    return int(np.argmax(column < 700))


def test_reasons_have_colours_of_their_own() -> None:
    assert len(set(REASON_COLORS.values())) == len(REASON_COLORS)
    assert reason_color("ivc") == REASON_COLORS["ivc"]
    assert reason_color("a method's own word") in MORE_COLORS


def test_kept_cells_are_bright_and_in_their_place() -> None:
    layout = ImageLayout((Grid(7, 4, 4),))
    picture = draw_overlay(
        GRAY, layout=layout, kept=[7, 13, 22], reasons=["ivc", "seed", "foreground"]
    )
    top = photo_top(picture, 480)
    panel = picture.crop((MARGIN, top, MARGIN + 480, top + 480))
    assert bright(panel, 4, 4) == [(0, 0), (1, 2), (3, 3)]
    for reason in ("ivc", "seed", "foreground"):
        assert count(picture, REASON_COLORS[reason]) > 500
    assert count(picture, REASON_COLORS["kept"]) == 0


def test_small_photos_grow_and_large_ones_shrink() -> None:
    small = draw_overlay(GRAY, layout=FOUR, kept=[0])
    assert small.width >= 480
    assert small.mode == "RGB"
    large = draw_overlay(Image.new("L", (4000, 1000)), layout=FOUR, kept=[0])
    assert large.width <= 1280 + 2 * MARGIN
    assert large.height < 500
    narrow = ImageLayout((Grid(0, 40, 1),))
    assert draw_overlay(Image.new("RGBA", (5, 400)), layout=narrow, kept=[0]).width >= 480


def test_many_cells_get_room() -> None:
    assert enlargement(GRAY, [Grid(0, 8, 8)]) == 480 / 48
    assert enlargement(GRAY, [Grid(0, 60, 60)]) == 60 * 12 / 48
    assert enlargement(GRAY, [Grid(0, 400, 400)]) == 1280 / 48


def test_newlines_behind_rows_are_no_cells() -> None:
    panel = draw_panel(GRAY, [Grid(5, 3, 2, step=3)], {5: "ivc", 9: "ivc", 11: "ivc"}, 10)
    assert bright(panel, 3, 2) == [(0, 0), (1, 1), (2, 0)]


def test_padding_extends_the_canvas() -> None:
    padded = Grid(0, 4, 4, area=(0.0, -0.5, 1.0, 1.5))
    panel = draw_panel(WIDE, [padded], {1: "ivc", 6: "seed"}, 10)
    assert panel.size == (480, 480)
    assert bright(panel, 4, 4) == [(0, 1), (1, 2)]
    red, green, blue = np.asarray(panel).astype(int).transpose(2, 0, 1)
    apart = (red - (green + blue) / 2) > 20  # where the red photo is, dark or not
    inside = apart[:, :120].any(axis=1).nonzero()[0]  # dropped cells only
    assert (inside.min(), inside.max()) == pytest.approx((120, 359), abs=1)  # lines between cells
    assert count(draw_overlay(WIDE, layout=ImageLayout((padded,)), kept=[1]), HATCH) > 20
    assert count(draw_overlay(WIDE, layout=FOUR, kept=[1]), HATCH) == 0


def test_what_is_cropped_off_is_faded() -> None:
    middle = Grid(0, 1, 2, area=(0.25, 0.0, 0.75, 1.0))
    panel = np.asarray(draw_panel(WIDE, [middle], {0: "ivc"}, 10)).astype(int)
    assert panel.shape == (240, 480, 3)
    assert panel[120, 60].tolist() == panel[120, 420].tolist() == [254, 196, 196]
    assert panel[120, 180].tolist() == [251, 42, 17]  # a seventh of the reason's colour
    assert panel[120, 300].max() < 100
    cropped = draw_overlay(WIDE, layout=ImageLayout((middle,)), kept=[0])
    assert count(cropped, UNSEEN) > 200
    assert count(draw_overlay(WIDE, layout=FOUR, kept=[0]), UNSEEN) < 20  # of the letters


def test_tiles_make_one_photo_with_borders_between() -> None:
    panel = draw_panel(WIDE, TILES, {6: "ivc", 11: "ivc"}, 10)
    assert panel.size == (480, 240)
    assert bright(panel, 2, 4) == [(0, 1), (1, 2)]
    pixels = np.asarray(panel)
    assert (pixels[:, 239:241] == BORDER).all()
    assert not (pixels[100:110, 115:125] == BORDER).all(axis=-1).any()


def test_a_thumbnail_stands_beside_the_tiles() -> None:
    layout = ImageLayout((*TILES, THUMBNAIL))
    picture = draw_overlay(WIDE, layout=layout, kept=[6, 13, 16])
    assert picture.width == 2 * MARGIN + 480 + MARGIN + 240
    top = MARGIN + CAPTION
    tiles = picture.crop((MARGIN, top, MARGIN + 480, top + 240))
    left = 2 * MARGIN + 480
    whole = picture.crop((left, top, left + 240, top + 120))
    assert bright(tiles, 2, 4) == [(0, 1)]
    assert bright(whole, 2, 2) == [(0, 0), (1, 1)]
    large = draw_overlay(WIDE.resize((2000, 1000)), layout=layout, kept=[])
    assert large.width == 1280 + 2 * MARGIN  # the thumbnail stands below


def test_each_frame_has_its_photo() -> None:
    frames = ImageLayout(tuple(Grid(10 * n, 1, 2, "frame") for n in range(3)))
    photos = [Image.new("RGB", (48, 24), color) for color in ("red", "lime", "blue")]
    picture = draw_overlay(photos, layout=frames, kept=[0, 11, 21])
    middles = np.asarray(picture)[MARGIN + CAPTION + 60, MARGIN + 60 :: 240 + MARGIN][:3]
    assert middles.argmax(axis=1).tolist() == [0, 1, 2]
    draw_overlay(WIDE, layout=frames, kept=[0])
    with pytest.raises(ValueError, match="Expected one image, or 3 for the frames; got 2"):
        draw_overlay(photos[:2], layout=frames, kept=[0])


def test_boxes_are_drawn_where_they_are() -> None:
    options: dict[str, Any] = {"layout": FOUR, "kept": []}
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


def test_boxes_on_a_padded_photo_move_with_it() -> None:
    padded = Grid(0, 4, 4, area=(0.0, -0.5, 1.0, 1.5))
    panel = draw_panel(WIDE, [padded], {}, 10, truth=(12, 6, 24, 18))
    ys, xs = np.nonzero((np.asarray(panel) == TRUE_COLOR).all(axis=-1))
    found = (xs.min(), ys.min(), xs.max(), ys.max())
    assert found == pytest.approx((120, 120 + 60, 240, 120 + 180), abs=2)


def test_boxes_outside_the_photo_are_drawn_along_its_border() -> None:
    options: dict[str, Any] = {"layout": FOUR, "kept": [1]}
    wild = draw_overlay(GRAY, truth=(1, 1, 5, 5), predicted=(-900, -900, 9e9, 9e9), **options)
    assert count(wild, PREDICTED_COLOR) > 1000


def test_a_longer_title_makes_room() -> None:
    options: dict[str, Any] = {"layout": FOUR, "kept": []}
    heights = [draw_overlay(GRAY, title="word " * words, **options).height for words in (0, 3, 60)]
    assert heights == sorted(set(heights))


def test_the_photo_itself_is_left_alone() -> None:
    image = GRAY.copy()
    ImageDraw.Draw(image).line((0, 0, 40, 40), fill=(1, 2, 3))
    before = image.tobytes()
    draw_overlay(image, layout=FOUR, kept=[0], truth=(1, 1, 9, 9))
    assert image.tobytes() == before


@pytest.mark.parametrize(
    ("kept", "reasons", "message"),
    [
        ([4], None, "got prompt index 4"),
        ([-1], None, "index -1"),
        ([0, 1], ["ivc"], "Expected 2 reasons"),
    ],
)
def test_misuse_is_told(kept: list[int], reasons: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_overlay(GRAY, layout=FOUR, kept=kept, reasons=reasons)
