"""An overlay for one answer: the visual tokens, which were kept and why, and the boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.types import Box
from ivcp.visualize.panel import (
    GRID,
    PREDICTED_COLOR,
    REASON_COLORS,
    SIDES,
    TRUE_COLOR,
    Color,
    draw_panel,
    enlargement,
    extent,
    hatched,
    reason_color,
)

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Entry: TypeAlias = tuple[str, Color, str]

REASON_NAMES = {"ivc": "IVC"}
PAPER, INK, FAINT = (255, 255, 255), (30, 30, 30), (110, 110, 110)
UNSEEN = (215, 215, 215)
REDUCED = 0.5  # size of a panel for a thumbnail or frame, compared with the first panel
SLIVER = 0.02  # of the image: the legend mentions a hidden margin only if it is wider
MARGIN = 12
CAPTION = 22  # height of a caption in pixels
SYMBOL = 30  # width of a legend symbol in pixels


def draw_overlay(
    image: Image.Image | Sequence[Image.Image],
    *,
    layout: ImageLayout,
    kept: Sequence[int],
    reasons: Sequence[str] | None = None,
    predicted: Box | None = None,
    truth: Box | None = None,
    title: str = "",
    labels: Sequence[str] | None = None,
) -> Image.Image:
    """The image with its visual tokens; dropped cells are dark, kept cells framed by reason.

    All tiles share a panel; a thumbnail, and each frame of a video, has a smaller panel. Padding is
    hatched, and areas that the model is not shown are faded.

    Args:
        image: The image, in any size and mode; for a video, one for all frames or one for each.
        layout: The visual tokens; areas are fractions of `image`.
        kept: (K,) prompt indices of the kept visual tokens of this image.
        reasons: (K,) why each was kept; None means "kept" for all.
        predicted: The predicted box, in pixels of `image`; drawn dashed.
        truth: The true box, in pixels of `image`.
        title: One sentence above the image; long ones are wrapped.
        labels: What stands above each frame of a video, such as its time; None numbers them.

    Returns:
        An RGB overlay with title and legend; the image's longer side has at least 480 pixels.

    Raises:
        ValueError: A kept token does not belong to the image, `reasons` has another length than
            `kept`, or the number of images is wrong.
    """
    names = ["kept"] * len(kept) if reasons is None else list(reasons)
    if len(names) != len(kept):
        raise ValueError(f"Expected {len(kept)} reasons, one a kept token; got {len(names)}.")
    tokens = set(layout.tokens.tolist())
    if outside := [token for token in kept if token not in tokens]:
        raise ValueError(f"Expected visual tokens of the image; got prompt index {outside[0]}.")
    views = _views(layout)
    images = [image] * len(views) if isinstance(image, Image.Image) else list(image)
    if len(images) != len(views):
        raise ValueError(f"Expected one image, or {len(views)} for the frames; got {len(images)}.")
    reason_of = dict(zip(kept, names, strict=True))
    factor = enlargement(images[0], views[0])
    panels = [
        draw_panel(
            each, view, reason_of, factor * (REDUCED if _apart(view[0]) else 1), truth, predicted
        )
        for each, view in zip(images, views, strict=True)
    ]
    captions = _captions(views, reason_of, labels) if labels or len(views) > 1 else [""]
    entries = _legend_entries(names, layout.length, truth is not None, predicted is not None)
    if layout.on_padding.any():
        entries.append(("hatch", GRID, "padding"))
    if any(max(x1, y1, 1 - x2, 1 - y2) > SLIVER for x1, y1, x2, y2 in map(extent, views)):
        entries.append(("dark", UNSEEN, "not shown to the model"))
    return _frame(panels, captions, title, entries)


def _views(layout: ImageLayout) -> list[list[Grid]]:
    """The grids of each panel: those that share a panel, then each thumbnail and frame."""
    apart = [[grid] for grid in layout.grids if _apart(grid)]
    joined = [grid for grid in layout.grids if not _apart(grid)]
    return [joined, *apart] if joined else apart


def _apart(grid: Grid) -> bool:
    return grid.kind in ("thumbnail", "frame")


def _captions(
    views: Sequence[Sequence[Grid]], reason_of: Mapping[int, str], labels: Sequence[str] | None
) -> list[str]:
    """What each panel shows, and how many of its tokens were kept."""
    names = {"image": "image", "tile": "tiles", "thumbnail": "thumbnail"}
    captions = []
    for number, view in enumerate(views, 1):
        tokens = [token for grid in view for token in grid.tokens.tolist()]
        kept = sum(token in reason_of for token in tokens)
        frame = labels[number - 1] if labels else f"frame {number}"
        captions.append(f"{names.get(view[0].kind, frame)}: kept {kept} of {len(tokens)}")
    return captions


def _legend_entries(names: Sequence[str], total: int, truth: bool, predicted: bool) -> list[Entry]:
    """(symbol, colour, text) of everything in the overlay."""
    entries: list[Entry] = [
        ("cell", reason_color(name), f"{REASON_NAMES.get(name, name)} {names.count(name)}")
        for name in sorted(set(names), key=lambda name: (name not in REASON_COLORS, name))
    ]
    dropped = total - len(names)
    entries.append(("dark", GRID, f"dropped {dropped} of {total}"))
    if truth:
        entries.append(("line", TRUE_COLOR, "true box"))
    if predicted:
        entries.append(("dash", PREDICTED_COLOR, "predicted box"))
    elif truth:
        entries.append(("none", FAINT, "no box predicted"))
    return entries


def _frame(
    panels: Sequence[Image.Image], captions: Sequence[str], title: str, entries: Sequence[Entry]
) -> Image.Image:
    """A sheet with the title above the panels and the legend below."""
    title_font, font = ImageFont.load_default(size=17), ImageFont.load_default(size=15)
    caption = CAPTION if any(captions) else 0
    sizes = [
        (max(panel.width, round(font.getlength(text))), panel.height + caption)
        for panel, text in zip(panels, captions, strict=True)
    ]
    panel_corners, block = _flow(sizes, SIDES[1], (MARGIN, MARGIN))
    usable = max(block[0], SIDES[0])
    head = _wrap(title, title_font, usable)
    lengths = [
        ((0 if symbol == "none" else SYMBOL) + round(font.getlength(text)), 20)
        for symbol, _, text in entries
    ]
    entry_corners, legend = _flow(lengths, usable, (20, 5))
    top = MARGIN + 23 * len(head) + (4 if head else 0)
    below = top + block[1] + MARGIN
    paper = Image.new("RGB", (usable + 2 * MARGIN, below + legend[1] + MARGIN), PAPER)
    draw = ImageDraw.Draw(paper)
    for number, line in enumerate(head):
        draw.text((MARGIN, MARGIN - 2 + 23 * number), line, font=title_font, fill=INK)
    left = (paper.width - block[0]) // 2
    for (x, y), panel in zip(panel_corners, panels, strict=True):
        paper.paste(panel, (left + x, top + y + caption))
    for (x, y), text in zip(panel_corners, captions, strict=True):
        draw.text((left + x, top + y), text, font=font, fill=INK)
    for (x, y), (symbol, color, text) in zip(entry_corners, entries, strict=True):
        _draw_symbol(paper, MARGIN + x, below + y, symbol, color)
        ink, indent = (FAINT, 0) if symbol == "none" else (INK, SYMBOL)
        draw.text((MARGIN + x + indent, below + y), text, font=font, fill=ink)
    return paper


def _draw_symbol(paper: Image.Image, x: int, y: int, symbol: str, color: Color) -> None:
    draw = ImageDraw.Draw(paper)
    if symbol == "hatch":
        paper.paste(hatched(23, 17), (x, y + 1))
    elif symbol in ("cell", "dark"):
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
    sizes: Sequence[tuple[int, int]], usable: int, gap: tuple[int, int]
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Corner of each rectangle, left to right and line by line, and the size of all together."""
    corners: list[tuple[int, int]] = []
    x, y, widest, bottom = 0, 0, 0, 0
    for width, height in sizes:
        if x and x + width > usable:
            x, y = 0, bottom + gap[1]
        corners.append((x, y))
        widest, bottom = max(widest, x + width), max(bottom, y + height)
        x += width + gap[0]
    return corners, (widest, bottom)


def _wrap(text: str, font: Font, usable: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= usable:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
