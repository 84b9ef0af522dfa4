"""What stands in the cell of an image: one, a list of them, or something else."""

from __future__ import annotations

import ast
import base64
import io
import warnings

from PIL import Image

HEAD = 8192
"""Characters of base64, a multiple of four, in which most image files tell their size."""


def listed(cell: str) -> tuple[str, ...] | None:
    """The texts of a cell that is a list as Python writes it; None for any other.

    >>> listed("['left', 'right']"), listed("[left or right"), listed("left")
    (('left', 'right'), None, None)
    """
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return tuple(map(str, value)) if isinstance(value, list) else None


def sizes_of(cell: str) -> tuple[tuple[int, int], ...]:
    """Width and height of each image in a cell, from as little of it as tells; empty if unknown.

    >>> sizes_of("photo.jpg"), sizes_of("7")
    ((), ())
    """
    found = [_size(text) for text in listed(cell) or (cell,)]
    return tuple(size for size in found if size is not None) if all(found) else ()


def _size(text: str) -> tuple[int, int] | None:
    if "." in text:  # a path
        return None
    for part in (text[:HEAD], text) if len(text) > HEAD else (text,):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a large one, which is not decoded here
                with Image.open(io.BytesIO(base64.b64decode(part))) as image:
                    return image.size
        except Exception:  # whatever PIL's readers stumble over; reading the row will tell
            continue
    return None
