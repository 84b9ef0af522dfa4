"""From an encoded image to the RGB pixels that a model gets; all parts open images here."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Formats that are opened, all of them rasters: EPS files would reach Ghostscript, which executes
programs. AVIF comes last, because older versions of Pillow do not have it."""

MAX_PIXELS = 100_000_000
"""Most pixels of an image. A file of 20 kB can hold an image of many gigabytes."""

SIXTEEN_BITS = 65_535
WHITES = (1, 255, SIXTEEN_BITS)
"""Values that may be white in an image of 32 bits a pixel, whose file does not say which one is."""


def open_image(encoded: bytes | Path) -> Image.Image:
    """An image whose header is read, and whose pixels are not.

    Args:
        encoded: The content of an image file, or its path.

    Raises:
        OSError: It cannot be read, is in none of `FORMATS` or has more than `MAX_PIXELS`.
    """
    file = encoded if isinstance(encoded, Path) else io.BytesIO(encoded)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is ours
            image: Image.Image = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise OSError(f"Expected an image of at most {MAX_PIXELS:,} pixels; {error}") from error
    except UnidentifiedImageError as error:
        raise OSError(f"Expected an image in the format {' or '.join(FORMATS)}.") from error
    except (OSError, MemoryError):
        raise
    except Exception as error:  # Pillow lets through whatever its readers stumble over
        raise OSError(f"no image that can be read ({error})") from error
    _check_size(image)
    return image


def decode(encoded: bytes | Path) -> Image.Image:
    """The image in RGB (`to_rgb`), decoded to its last pixel.

    Raises:
        OSError: It cannot be read or decoded, or has more than `MAX_PIXELS`.
    """
    with open_image(encoded) as image:
        return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """A copy in RGB with 8 bits a channel and without tags.

    An orientation tag is not followed, because boxes go by the pixels as they are stored; tags are
    dropped, so that nothing later follows one. Transparency is dropped. Deep grey images, which
    `Image.convert` would cut off at 255, are scaled: 16 bits by 1 / 257, so that 65,535 is white;
    32 bits (modes I and F) so that white is the least of 1, 255 and 65,535 that no pixel exceeds,
    else the brightest pixel. Negative values and NaN are black.

    Raises:
        OSError: It cannot be decoded, or has more than `MAX_PIXELS`.
    """
    _check_size(image)
    try:
        deep = image.mode == "F" or image.mode.startswith("I")
        pixels = (_scaled(image) if deep else image).convert("RGB")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # Pillow lets through whatever its decoders stumble over
        raise OSError(f"no image that can be decoded ({error})") from error
    pixels.info.clear()
    return pixels


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise OSError(
            f"Expected an image of at most {MAX_PIXELS:,} pixels; got one of {image.width} x "
            f"{image.height}. Scale it down."
        )


def _scaled(image: Image.Image) -> Image.Image:
    """Deep grey as 8-bit grey."""
    values = np.array(image, dtype=np.float32)
    if image.mode != "F" and (image.mode != "I" or image.format in ("PNG", "PPM")):
        white = float(SIXTEEN_BITS)  # no PNG or PPM file has more bits
    else:
        brightest = float(np.max(values, initial=0, where=np.isfinite(values)))
        white = float(next((level for level in WHITES if brightest <= level), brightest))
    np.nan_to_num(values, copy=False, nan=0.0, posinf=white, neginf=0.0)
    values *= 255 / white
    np.clip(values, 0, 255, out=values)
    return Image.fromarray(np.rint(values, out=values).astype(np.uint8))
