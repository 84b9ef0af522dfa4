"""A picture of one answer: the visual-token grid, what was kept and why, and the boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ivcp.core.selection import ROLES
from ivcp.core.types import Box

Color: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

SIDES = (480, 1280)  # pixels, of the longer side of the photo: smaller is enlarged, larger reduced
ROLE_COLORS: dict[str, Color] = {
    "kept": (86, 180, 233),
    "ivc": (255, 176, 0),
    "seed": (232, 56, 49),
    "foreground": (72, 160, 255),
    "merged": (214, 120, 190),
}
ROLE_NAMES = {"ivc": "IVC"}
TRUE_COLOR: Color = (60, 225, 90)
PREDICTED_COLOR: Color = (255, 235, 60)
PAPER, INK, FAINT, GRID = (255, 255, 255), (30, 30, 30), (110, 110, 110), (60, 60, 60)
DIMMED = 0.34  # brightness of a dropped cell
TINT = 0.14  # share of the role's colour in a kept cell
MARGIN = 12
SYMBOL = 30  # pixels that a legend symbol takes
DASH, GAP = 10, 7


def draw_overlay(
    image: Image.Image,
    *,
    rows: int,
    columns: int,
    kept: Sequence[int],
    roles: Sequence[int] | None = None,
    predicted: Box | None = None,
    truth: Box | None = None,
    title: str = "",
) -> Image.Image:
    """The photo with its visual-token grid; dropped cells are dark, kept ones framed by role.

    Args:
        image: The photo, in any size and mode.
        rows: Rows of the visual-token grid.
        columns: Columns of the visual-token grid.
        kept: (K,) indices into the image's own visual tokens, row by row.
        roles: (K,) indices into `ROLES`; None means "kept" throughout.
        predicted: Box that was answered, in pixels of `image`; drawn dashed.
        truth: Box that was asked for, in pixels of `image`.
        title: One sentence above the photo; long ones are wrapped.

    Returns:
        An RGB picture, photo at least 480 pixels at its longer side, with title and legend.

    Raises:
        ValueError: An index is outside the grid, or `roles` has another length than `kept`.
    """
    names = ["kept"] * len(kept) if roles is None else [ROLES[role] for role in roles]
    if len(names) != len(kept):
        raise ValueError(f"Expected {len(kept)} roles, one a kept token; got {len(names)}.")
    if outside := [index for index in kept if not 0 <= index < rows * columns]:
        raise ValueError(f"Expected indices below {rows} x {columns}; got {outside[0]}.")
    photo = _resize(image.convert("RGB"))
    across, down = _edges(photo.width, columns), _edges(photo.height, rows)
    cells = {
        index: (across[index % columns], down[index // columns],
                across[index % columns + 1], down[index // columns + 1])
        for index in range(rows * columns)
    }  # fmt: skip
    photo = _shade(photo, cells, dict(zip(kept, names, strict=True)))
    scale = photo.width / image.width, photo.height / image.height
    for box, color, dashed in ((truth, TRUE_COLOR, False), (predicted, PREDICTED_COLOR, True)):
        if box is not None:
            _draw_box(photo, box, scale, color, dashed)
    entries = _legend_entries(names, rows * columns, truth is not None, predicted is not None)
    return _frame(photo, title, entries)


def _resize(photo: Image.Image) -> Image.Image:
    longer = max(photo.size)
    factor = min(max(longer, SIDES[0]), SIDES[1]) / longer
    size = max(1, round(photo.width * factor)), max(1, round(photo.height * factor))
    return photo.resize(size, Image.Resampling.LANCZOS)


def _edges(length: int, parts: int) -> list[int]:
    return [round(i * length / parts) for i in range(parts + 1)]


def _shade(
    photo: Image.Image, cells: dict[int, tuple[int, int, int, int]], kept: dict[int, str]
) -> Image.Image:
    """Dim the dropped cells; tint and frame the kept ones."""
    pixels = np.asarray(photo, dtype=np.float32)
    gray = pixels.mean(axis=2, keepdims=True)
    shaded = DIMMED * (0.6 * pixels + 0.4 * gray)
    for index, role in kept.items():
        left, top, right, bottom = cells[index]
        color = np.asarray(ROLE_COLORS[role], dtype=np.float32)
        patch = pixels[top:bottom, left:right]
        shaded[top:bottom, left:right] = (1 - TINT) * patch + TINT * color
    result = Image.fromarray(shaded.round().astype(np.uint8))
    draw = ImageDraw.Draw(result)
    for index, (left, top, right, bottom) in cells.items():
        if min(right - left, bottom - top) < 4:
            continue
        if index not in kept:
            draw.rectangle((left, top, right - 1, bottom - 1), outline=GRID)
        else:
            width = max(1, min(right - left, bottom - top) // 14)
            inside = (left + 1, top + 1, right - 2, bottom - 2)
            draw.rectangle(inside, outline=ROLE_COLORS[kept[index]], width=width)
    return result


def _draw_box(photo: Image.Image, box: Box, scale: Point, color: Color, dashed: bool) -> None:
    """A box with a dark halo; parts outside the photo are drawn along its border."""
    reach = photo.width - 3, photo.height - 3
    x1, y1, x2, y2 = (
        min(max(value * scale[axis % 2], 2), reach[axis % 2]) for axis, value in enumerate(box)
    )
    draw = ImageDraw.Draw(photo)
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


def _legend_entries(
    names: Sequence[str], total: int, truth: bool, predicted: bool
) -> list[tuple[str, Color, str]]:
    """(symbol, colour, text) of what is in the picture."""
    entries: list[tuple[str, Color, str]] = [
        ("cell", ROLE_COLORS[role], f"{ROLE_NAMES.get(role, role)} {names.count(role)}")
        for role in ROLES
        if role in names
    ]
    dropped = total - len(names)
    entries.append(("dark", GRID, f"dropped {dropped} of {total}"))
    if truth:
        entries.append(("line", TRUE_COLOR, "true box"))
        if predicted:
            entries.append(("dash", PREDICTED_COLOR, "predicted box"))
        else:
            entries.append(("none", FAINT, "no box predicted"))
    return entries


def _frame(photo: Image.Image, title: str, entries: list[tuple[str, Color, str]]) -> Image.Image:
    """Paper with the title above the photo and the legend below."""
    title_font, font = ImageFont.load_default(size=17), ImageFont.load_default(size=15)
    width = max(photo.width, SIDES[0]) + 2 * MARGIN
    usable = width - 2 * MARGIN
    head = _wrap(title, title_font, usable)
    places, legend_height = _flow(entries, font, usable)
    top = MARGIN + 23 * len(head) + (4 if head else 0)
    height = top + photo.height + MARGIN + legend_height + MARGIN
    paper = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(paper)
    for number, line in enumerate(head):
        draw.text((MARGIN, MARGIN - 2 + 23 * number), line, font=title_font, fill=INK)
    paper.paste(photo, ((width - photo.width) // 2, top))
    below = top + photo.height + MARGIN
    for (x, y), (symbol, color, text) in zip(places, entries, strict=True):
        _draw_symbol(draw, MARGIN + x, below + y, symbol, color)
        ink, indent = (FAINT, 0) if symbol == "none" else (INK, SYMBOL)
        draw.text((MARGIN + x + indent, below + y), text, font=font, fill=ink)
    return paper


def _draw_symbol(draw: ImageDraw.ImageDraw, x: int, y: int, symbol: str, color: Color) -> None:
    if symbol in ("cell", "dark"):
        light = tuple(round(255 * (1 - 0.35) + 0.35 * channel) for channel in color)
        fill = color if symbol == "dark" else light
        draw.rectangle((x, y + 1, x + 22, y + 17), fill=fill, outline=color, width=3)
    elif symbol in ("line", "dash"):
        middle = y + 9
        stretches = [(x, x + 22)] if symbol == "line" else [(x, x + 9), (x + 14, x + 22)]
        for start, end in stretches:
            draw.line((start - 1, middle, end + 1, middle), fill=(0, 0, 0), width=7)
            draw.line((start, middle, end, middle), fill=color, width=4)


def _flow(
    entries: list[tuple[str, Color, str]], font: Font, usable: int
) -> tuple[list[tuple[int, int]], int]:
    """Place of each legend entry, left to right and line by line, and the height of all."""
    places, x, y = [], 0, 0
    for symbol, _, text in entries:
        length = (0 if symbol == "none" else SYMBOL) + round(font.getlength(text))
        if x and x + length > usable:
            x, y = 0, y + 25
        places.append((x, y))
        x += length + 20
    return places, y + 20


def _wrap(text: str, font: Font, usable: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= usable:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
