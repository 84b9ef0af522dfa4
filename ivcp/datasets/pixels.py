"""From an encoded image to the pixels that a model is shown."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def decode(encoded: bytes | Path) -> Image.Image:
    """The image in RGB, decoded to its last pixel.

    An orientation tag is not followed: boxes go by the pixels as they are stored. All tags are left
    behind, so that nothing later follows one either. Transparency is dropped, and 16-bit grey is
    scaled to 8 bits, where a plain conversion would turn most of it white.

    Args:
        encoded: The content of an image file, or its path.

    Raises:
        OSError: It cannot be read, is damaged, or is so large that it may be an attack.
    """
    try:
        with Image.open(encoded if isinstance(encoded, Path) else io.BytesIO(encoded)) as image:
            if image.mode.startswith("I;16"):
                image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
            pixels: Image.Image = image.convert("RGB")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # PIL lets through whatever its decoders stumble over
        raise OSError(f"no image that can be decoded ({error})") from error
    pixels.info.clear()
    return pixels
