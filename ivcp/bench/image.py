"""The image of a benchmark's prompt: a rendered scene of any size, or one of the user's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.pixels import MAX_PIXELS, decode, to_rgb
from ivcp.datasets.scenes import make_scene

ImageSource: TypeAlias = Image.Image | str | Path | Sequence[int]
"""An image, the path of an image file, or the width and height of a scene in pixels."""

WANTED = "image must be a width and a height such as [1024, 1024], or the path of an image file"
UNIT = 28
"""Side of a visual token in pixels, for families whose configuration does not tell."""
MOST_TILES = 40


def bench_image(source: ImageSource) -> Image.Image:
    """The image in RGB.

    Raises:
        UserError: The file cannot be read as an image, or a size is not two positive numbers.
    """
    try:
        if isinstance(source, Image.Image):
            return to_rgb(source)
        if isinstance(source, str | Path):
            return decode(Path(source))
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        raise UserError(f"{WANTED}; got {str(source)!r}: {reason}.") from error
    sides: list[Any] = list(source) if isinstance(source, Sequence) else []
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise UserError(f"{WANTED}; got {source!r}.")
    width, height = sides
    if width * height > MAX_PIXELS:
        raise UserError(f"{WANTED}, of at most {MAX_PIXELS:,} pixels; got {source!r}.")
    return make_scene(0, "test", 0).render().resize((width, height), Image.Resampling.BICUBIC)


def image_size(tokens: int, family: ModelFamily, processor: Any) -> tuple[int, int]:
    """Width and height of an image that gives as nearly as possible so many visual tokens.

    Of equals it is the smallest, then the one nearest to a square. Qwen-VL gets squares only.

    Args:
        tokens: Visual tokens of the prompt.
        family: The model's family.
        processor: What the family's `load` gave.
    """

    def distance(size: tuple[int, int]) -> tuple[float, int, float]:
        width, height = size
        expected = family.expected_tokens(processor, [size])
        return abs(expected - tokens), width * height, abs(math.log(width / height))

    return min(_sizes(tokens, processor.config), key=distance)


def _sizes(tokens: int, config: Any) -> Iterator[tuple[int, int]]:
    """Sizes of images of whole visual tokens, or of whole tiles where a model has tiles."""
    tower = getattr(config, "vision_config", None)
    edge = getattr(tower, "image_size", None)
    if merge := getattr(tower, "spatial_merge_size", None):
        unit = merge * tower.patch_size  # type: ignore[union-attr]
    elif edge is not None:
        unit = edge if isinstance(edge, int) else edge[0]
        for rows in range(1, MOST_TILES):
            for columns in range(1, MOST_TILES // rows + 1):
                yield columns * unit, rows * unit
        return
    else:
        unit = UNIT
    side = math.isqrt(tokens)
    for count in range(max(1, side - 1), side + 3):
        yield count * unit, count * unit
