"""Images of a task's document, as RGB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.pixels import FORMATS, decode, to_rgb


class UnsupportedTaskError(UserError):
    """A task has documents that no model family of this package takes."""


def check_visuals(visuals: list[Any], name: str) -> None:
    """Check that a document has images or image files only.

    Args:
        visuals: What the task gives.
        name: Of the document, for the message.

    Raises:
        UnsupportedTaskError: It has something else, such as a video.
    """
    for visual in visuals:
        if isinstance(visual, Image.Image) or (isinstance(visual, str) and _is_image_name(visual)):
            continue
        kind = repr(visual) if isinstance(visual, str) else f"a {type(visual).__name__}"
        raise UnsupportedTaskError(
            f"ivcp takes images and image files only, but {name} has {kind}: choose a task about "
            "images."
        )


def read_visual(visual: Image.Image | str) -> Image.Image:
    """An image, or the file that a text names, converted as `run.py` does it.

    Raises:
        OSError: It cannot be read or decoded, or has too many pixels.
    """
    return to_rgb(visual) if isinstance(visual, Image.Image) else decode(Path(visual))


def _is_image_name(path: str) -> bool:
    """Whether a path ends like an image's; a path without an ending may be one."""
    suffix = Path(path).suffix.lower()
    return not suffix or Image.registered_extensions().get(suffix) in (*FORMATS, "MPO")
