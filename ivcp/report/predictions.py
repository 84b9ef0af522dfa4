"""Lines of `predictions.jsonl` as pictures and pages need them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout
from ivcp.report.runs import Run

FILE = "predictions.jsonl"
FOREIGN = (AttributeError, LookupError, TypeError, ValueError, RecursionError)
"""What lines raise that are none."""


def read_samples(run: Run) -> Iterator[dict[str, Any]]:
    """What the run wrote of each sample, line by line.

    Raises:
        UserError: The file is missing, torn or foreign.
    """
    number = 0
    try:
        with (run.folder / FILE).open(encoding="utf-8") as file:
            for text in file:
                number += 1
                told = json.loads(text)
                if not isinstance(told, dict) or "id" not in told:
                    raise TypeError
                yield told
    except FileNotFoundError as error:
        raise UserError(f"{run.folder / FILE} is missing.") from error
    except OSError as error:
        raise UserError(
            f"{run.folder / FILE} cannot be read: {error.strerror or error}."
        ) from error
    except FOREIGN as error:
        raise UserError(f"{run.folder / FILE} is torn or foreign at line {number}.") from error


def layouts(told: dict[str, Any]) -> list[ImageLayout]:
    """The visual tokens of each image of a sample; areas are fractions of the image.

    Raises:
        UserError: The line tells none that make sense.
    """
    try:
        return [_layout(image) for image in told.get("images") or ()]
    except FOREIGN as error:
        raise UserError(f"The layout of sample {told['id']} cannot be read.") from error


def kept_reasons(told: dict[str, Any]) -> dict[int, str]:
    """Why each kept token was kept, by its index into the prompt.

    Raises:
        UserError: The line tells none that make sense.
    """
    try:
        kept = [int(token) for token in told.get("kept") or ()]
        reasons = dict.fromkeys(kept, "kept")
        for name, tokens in (told.get("reasons") or {}).items():
            reasons |= {token: str(name) for token in map(int, tokens) if token in reasons}
        return reasons
    except FOREIGN as error:
        raise UserError(f"The kept tokens of sample {told['id']} cannot be read.") from error


def _layout(told: Any) -> ImageLayout:
    if isinstance(told, list):  # older lines: start, rows and columns of one grid
        layout = ImageLayout((Grid(*told),))
    else:
        grids = [
            {**grid, "area": tuple(grid.get("area") or (0, 0, 1, 1))} for grid in told["grids"]
        ]
        layout = ImageLayout(tuple(Grid(**grid) for grid in grids))
    if not layout.length:
        raise ValueError("Expected visual tokens; got none.")
    return layout
