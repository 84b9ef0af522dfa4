"""One panel of an overlay: an image under the cells of its visual tokens."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from ivcp.core.layout import Grid
from ivcp.core.types import Box

Color: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]
Rectangle: TypeAlias = tuple[int, int, int, int]

SIDES = (480, 1280)  # least and most pixels along the longer side of a panel
CELL = 12  # least pixels of a cell along the longer side: an image of many cells is enlarged more
REASON_COLORS: dict[str, Color] = {
    "kept": (86, 180, 233),
    "ivc": (255, 176, 0),
    "seed": (232, 56, 49),
    "foreground": (72, 160, 255),
    "merged": (214, 120, 190),
}
MORE_COLORS: tuple[Color, ...] = (
    (0, 158, 115),
    (240, 228, 66),
    (148, 103, 189),
    (188, 189, 34),
    (140, 86, 75),
)
TRUE_COLOR: Color = (60, 225, 90)
PREDICTED_COLOR: Color = (255, 235, 60)
GRID, BORDER = (60, 60, 60), (250, 250, 250)
PADDING, HATCH = (120, 120, 120), (200, 200, 200)
DIMMED = 0.34  # brightness of a dropped cell
TINT = 0.14  # fraction of the reason's colour in a kept cell
FADED = 0.75  # fraction of white where there is no cell
DASH, GAP = 10, 7


def reason_color(reason: str) -> Color:
    """The colour of a reason; reasons of other methods get one of a few, always the same."""
    fallback = MORE_COLORS[zlib.crc32(reason.encode()) % len(MORE_COLORS)]
    return REASON_COLORS.get(reason, fallback)


def draw_panel(
    image: Image.Image,
    grids: Sequence[Grid],
    reasons: Mapping[int, str],
    factor: float,
    truth: Box | None = None,
    predicted: Box | None = None,
) -> Image.Image:
    """The image, with padding where grids reach beyond it, under the cells of the grids.

    Args:
        image: The image, in any size and mode.
        grids: Grids that show it, side by side; their areas are fractions of `image`.
        reasons: Why each kept token was kept, by its prompt index.
        factor: Pixels of the panel for one pixel of `image`.
        truth: The true box, in pixels of `image`.
        predicted: The predicted box, likewise; drawn dashed.
    """
    *corner, right, bottom = _canvas(grids)
    wide, high = right - corner[0], bottom - corner[1]
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    canvas = hatched(max(1, round(size[0] * wide)), max(1, round(size[1] * high)))
    small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    canvas.paste(small, (round(-corner[0] * size[0]), round(-corner[1] * size[1])))
    panel = _shade(canvas, [_cells(grid, corner, size) for grid in grids], reasons)
    scale = size[0] / image.width, size[1] / image.height
    left, top = corner[0] * image.width, corner[1] * image.height
    for box, color, dashed in ((truth, TRUE_COLOR, False), (predicted, PREDICTED_COLOR, True)):
        if box is not None:
            moved = box[0] - left, box[1] - top, box[2] - left, box[3] - top
            _draw_box(panel, moved, scale, color, dashed)
    return panel


def extent(grids: Sequence[Grid]) -> Box:
    """The area that grids show together, as fractions of the image."""
    x1, y1, x2, y2 = zip(*(grid.area for grid in grids), strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def enlargement(image: Image.Image, grids: Sequence[Grid]) -> float:
    """Pixels of a full-size panel for one pixel of its image."""
    left, top, right, bottom = _canvas(grids)
    width, height = (right - left) * image.width, (bottom - top) * image.height
    axis, longer = (0, width) if width >= height else (1, height)
    cell = min(
        (grid.area[axis + 2] - grid.area[axis]) * image.size[axis] / (grid.columns, grid.rows)[axis]
        for grid in grids
    )
    return min(max(longer, SIDES[0], longer * CELL / cell), SIDES[1]) / longer


def _canvas(grids: Sequence[Grid]) -> Box:
    """The area of a panel: the image, and the padding that grids show beyond it."""
    x1, y1, x2, y2 = extent(grids)
    return min(x1, 0.0), min(y1, 0.0), max(x2, 1.0), max(y2, 1.0)


def hatched(width: int, height: int) -> Image.Image:
    """The pattern of padding."""
    pattern = Image.new("RGB", (width, height), PADDING)
    draw = ImageDraw.Draw(pattern)
    for x in range(-height, width, 10):
        draw.line((x, height, x + height, 0), fill=HATCH, width=2)
    return pattern


def _cells(grid: Grid, corner: Sequence[float], size: tuple[int, int]) -> dict[int, Rectangle]:
    """Rectangle of each token on the canvas, by its prompt index.

    Args:
        grid: The grid.
        corner: Left and upper edge of the canvas, as fractions of the image.
        size: Pixels of the image on the canvas.
    """
    across, down = (
        [
            round((grid.area[axis] - corner[axis]) * size[axis] + edge * length / count)
            for edge in range(count + 1)
        ]
        for axis, count in enumerate((grid.columns, grid.rows))
        for length in [(grid.area[axis + 2] - grid.area[axis]) * size[axis]]
    )
    cells = [(row, column) for row in range(grid.rows) for column in range(grid.columns)]
    return {
        token: (across[column], down[row], across[column + 1], down[row + 1])
        for token, (row, column) in zip(grid.tokens.tolist(), cells, strict=True)
    }


def _outline(cells: Sequence[Rectangle]) -> Rectangle:
    """The rectangle around a grid's cells."""
    return *cells[0][:2], *cells[-1][2:]


def _shade(
    canvas: Image.Image, grids: Sequence[dict[int, Rectangle]], reasons: Mapping[int, str]
) -> Image.Image:
    """Dim the dropped cells, tint and frame the kept ones, and fade areas without a grid."""
    pixels = np.asarray(canvas, dtype=np.float32)
    gray = pixels.mean(axis=2, keepdims=True)
    dark = DIMMED * (0.6 * pixels + 0.4 * gray)
    shaded = (1 - FADED) * pixels + FADED * 255
    outlines = [_outline(list(cells.values())) for cells in grids]
    for left, top, right, bottom in outlines:
        shaded[top:bottom, left:right] = dark[top:bottom, left:right]
    cells = {token: cell for of_grid in grids for token, cell in of_grid.items()}
    for token in cells.keys() & reasons.keys():
        left, top, right, bottom = cells[token]
        color = np.asarray(reason_color(reasons[token]), dtype=np.float32)
        patch = pixels[top:bottom, left:right]
        shaded[top:bottom, left:right] = (1 - TINT) * patch + TINT * color
    result = Image.fromarray(shaded.round().astype(np.uint8))
    draw = ImageDraw.Draw(result)
    for token, (left, top, right, bottom) in cells.items():
        if min(right - left, bottom - top) < 4:
            continue
        if token not in reasons:
            draw.rectangle((left, top, right - 1, bottom - 1), outline=GRID)
        else:
            width = max(1, min(right - left, bottom - top) // 14)
            inside = (left + 1, top + 1, right - 2, bottom - 2)
            draw.rectangle(inside, outline=reason_color(reasons[token]), width=width)
    if len(grids) > 1:
        for left, top, right, bottom in outlines:
            draw.rectangle((left, top, right - 1, bottom - 1), outline=BORDER)
    return result


def _draw_box(panel: Image.Image, box: Box, scale: Point, color: Color, dashed: bool) -> None:
    """A box with a dark halo; edges outside the panel are drawn along its border."""
    reach = panel.width - 3, panel.height - 3
    x1, y1, x2, y2 = (
        min(max(value * scale[axis % 2], 2), reach[axis % 2]) for axis, value in enumerate(box)
    )
    draw = ImageDraw.Draw(panel)
    corners = ((x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1))
    lines = list(pairwise(corners))
    if dashed:
        lines = [dash for start, end in lines for dash in _dashes(start, end)]
    for line in lines:
        draw.line(line, fill=(0, 0, 0), width=6)
    for line in lines:
        draw.line(line, fill=color, width=3)


def _dashes(start: Point, end: Point) -> Iterator[tuple[Point, Point]]:
    (x1, y1), (x2, y2) = start, end
    length = abs(x2 - x1) + abs(y2 - y1)  # sides are horizontal or vertical
    at = 0.0
    while at < length:
        a, b = at / length, min(at + DASH, length) / length
        yield (x1 + a * (x2 - x1), y1 + a * (y2 - y1)), (x1 + b * (x2 - x1), y1 + b * (y2 - y1))
        at += DASH + GAP
