"""Cells of a table: lists, images in base64, and what tells images apart."""

from __future__ import annotations

import ast
import base64
import hashlib
import re

from ivcp.core.pixels import open_image

HEADER = 8192
"""Characters of base64, a multiple of four, in which most image files have their size."""

SHORT = 64
"""Most characters of a cell that names an image (a path, another row) instead of holding it."""

QUOTED = re.compile(r"""'[^'\\]*(?:\\.[^'\\]*)*(?:'|\Z)|"[^"\\]*(?:\\.[^"\\]*)*(?:"|\Z)""", re.S)
MAX_UNQUOTED = 10_000
"""Most characters of a list outside its texts; Python's parser takes 500 bytes for each."""


def read_list(cell: str) -> tuple[str, ...] | None:
    """The texts of a cell that is a list in Python's notation; None for any other cell.

    >>> read_list("['left', 'right']"), read_list("[left or right"), read_list("left")
    (('left', 'right'), None, None)
    """
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    if len(QUOTED.sub("", cell)) > MAX_UNQUOTED:
        return None
    try:
        value = ast.literal_eval(cell)
        return tuple(map(str, value)) if isinstance(value, list) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def decode_base64(text: str) -> bytes:
    """The bytes that a text stands for.

    Raises:
        OSError: It is no base64.
    """
    try:
        return base64.b64decode(text)
    except ValueError as error:  # also of characters beyond ASCII
        raise OSError(f"the cell of the image is no base64 ({error})") from error


def image_id(content: str | bytes) -> str:
    """What equal images have in common: a digest, or a short text itself, such as a path.

    >>> image_id("dog.jpg"), image_id("QUJD" * 40)
    ('dog.jpg', 'e9dc4bbced7433bb')
    """
    if isinstance(content, str):
        if len(content) <= SHORT:
            return content
        content = content.encode(errors="surrogatepass")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def image_sizes(cell: str) -> tuple[tuple[int, int], ...]:
    """Width and height of each image in a cell, from its header; empty if one is unknown.

    >>> image_sizes("dog.jpg"), image_sizes("7")
    ((), ())
    """
    sizes = [_size(text) for text in read_list(cell) or (cell,)]
    return tuple(size for size in sizes if size is not None) if all(sizes) else ()


def _size(text: str) -> tuple[int, int] | None:
    if "." in text:  # a path
        return None
    for prefix in (text[:HEADER], text) if len(text) > HEADER else (text,):
        try:
            with open_image(decode_base64(prefix)) as image:
                return image.size
        except OSError:  # the sample fails with this error when it is read
            continue
    return None
