"""The image of a benchmark's prompt: a rendered scene of any size, or one of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.pixels import MAX_PIXELS, decode, to_rgb
from ivcp.datasets.scenes import make_scene

ImageSource: TypeAlias = Image.Image | str | Path | Sequence[int]
"""An image, the path of an image file, or the width and height of a scene in pixels."""

WANTED = "image must be a width and a height such as [1024, 1024], or the path of an image file"


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
