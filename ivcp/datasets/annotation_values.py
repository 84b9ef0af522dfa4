"""Values of annotation files: of the right kind, or one sentence about what is wrong."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ivcp.core.errors import UserError
from ivcp.core.printable import whole
from ivcp.core.types import Box

LONGEST = 120
"""Most characters of a value in a message."""

LONGEST_ID = 255
"""Most characters of an id or a file name."""


def read_json(path: Path, origin: str, **options: Any) -> Any:
    """The content of a JSON file; `options` are those of `json.loads`.

    Raises:
        UserError: It cannot be read, is no JSON, or its nesting is too deep.
    """
    try:
        return json.loads(path.read_bytes(), **options)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is no JSON that can be read ({error}); get it from {origin}."
        ) from error


def list_of(value: object, where: str) -> list[Any]:
    """The value, which must be a list.

    Raises:
        UserError: It is something else.
    """
    if not isinstance(value, list):
        raise UserError(f"Expected a list of {where}; got a {type(value).__name__}.")
    return value


def fields(entry: object, names: Sequence[str], where: str) -> list[Any]:
    """The values of an entry's fields, in the order of `names`.

    Raises:
        UserError: It is no mapping, or lacks one.
    """
    if not isinstance(entry, Mapping):
        raise UserError(f"Expected {where} to have {', '.join(names)}; got {brief(entry)}.")
    absent = [name for name in names if name not in entry]
    if absent:
        raise UserError(
            f"Expected {where} to have {', '.join(names)}; {', '.join(absent)} "
            f"{'is' if len(absent) == 1 else 'are'} missing."
        )
    return [entry[name] for name in names]


def read_id(value: object, where: str) -> str:
    """A whole number of 64 bits, or a text of at most `LONGEST_ID` characters, as text.

    Raises:
        UserError: It is something else.
    """
    if isinstance(value, str) and len(value) <= LONGEST_ID and value == printable(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= 64:
        return str(value)
    raise UserError(f"Expected a whole number or a text as {where}; got {brief(value)}.")


def caption_problem(text: object, where: str) -> str:
    """Why a text cannot be part of a prompt; empty if it can.

    >>> caption_problem("her", "row 3"), caption_problem(None, "row 3")
    ('', 'Expected a text in row 3; got None.')
    """
    if not isinstance(text, str) or not text.strip():
        return f"Expected a text in {where}; got {brief(text)}."
    if text != printable(text):
        return f"Expected a text in {where}; got one with half a character: {brief(text)}."
    return ""


def printable(text: object) -> str:
    """A text without halves of characters (lone surrogates), which no file can hold."""
    return whole(text) if isinstance(text, str) else ""


def corners_or_reason(box: object, where: str) -> tuple[Box | None, str]:
    """`(x, y, width, height)` as `(x1, y1, x2, y2)`; or None and why it is no box.

    >>> corners_or_reason([10.5, 20, 5, 8], "here")
    ((10.5, 20.0, 15.5, 28.0), '')
    """
    try:
        x, y, width, height = four_numbers(box, where)
        return with_area((x, y, x + width, y + height), where), ""
    except UserError as error:
        return None, str(error)


def with_area(box: Box, where: str) -> Box:
    """The box itself.

    Raises:
        UserError: Its second corner is not to the right of and below the first.
    """
    x1, y1, x2, y2 = box
    if not (x1 < x2 and y1 < y2 and math.isfinite(x2) and math.isfinite(y2)):
        raise UserError(
            f"Expected a box with a positive width and height in {where}; got the corners {box}."
        )
    return box


def four_numbers(values: object, where: str) -> Box:
    """Four finite numbers, or texts of numbers, as floats.

    Raises:
        UserError: They are something else.
    """
    try:
        x1, y1, x2, y2 = map(float, values)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"Expected a box of four numbers in {where}; got {brief(values)}."
        ) from error
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise UserError(f"Expected a box of finite numbers in {where}; got {brief(values)}.")
    return x1, y1, x2, y2


def image_size(width: object, height: object, where: str) -> tuple[int, int]:
    """Width and height in pixels, from numbers or their texts.

    >>> image_size("640", 480.0, "here")
    (640, 480)

    Raises:
        UserError: They are not whole numbers above 0.
    """
    try:
        sides = [float(value) for value in (width, height)]  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        sides = []
    if not sides or not all(side.is_integer() and side > 0 for side in sides):
        raise UserError(
            f"Expected the width and height of an image in whole pixels in {where}; "
            f"got {brief(width)} and {brief(height)}."
        )
    return int(sides[0]), int(sides[1])


def brief(value: object) -> str:
    """A value for a message, however long or deep it is."""
    try:
        text = reprlib.repr(value)
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    except ValueError:  # whole numbers of thousands of digits have no text
        return f"a {type(value).__name__}"
