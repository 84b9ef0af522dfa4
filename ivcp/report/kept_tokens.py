"""The visual tokens of a prediction, checked before anything is drawn of them."""

from __future__ import annotations

from math import isfinite

from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.printable import printable
from ivcp.results.prediction import Prediction

MOST_TOKENS, MOST_GRIDS = 65_536, 64
LAST_INDEX = 2**31  # into a prompt
FARTHEST = 100.0  # sides of an image that padding reaches beyond it
LONGEST = 40  # characters of a reason


def kept_reasons(prediction: Prediction) -> dict[int, str]:
    """Why each kept token was kept, by its index into the prompt."""
    reasons = dict.fromkeys(prediction.kept, "kept")
    for name, tokens in prediction.reasons.items():
        reasons |= {token: printable(name, LONGEST) for token in tokens if token in reasons}
    return reasons


def drawable_images(prediction: Prediction) -> tuple[ImageLayout, ...]:
    """The visual tokens of each image; areas are fractions of the image.

    Raises:
        UserError: There are too many of them to draw, or no image has them like that.
    """
    images = prediction.images
    grids = [grid for image in images for grid in image.grids]
    views = [grid for grid in grids if grid.kind != "frame"]  # of frames, only some are drawn
    if len(views) > MOST_GRIDS or sum(max(0, grid.length) for grid in grids) > MOST_TOKENS:
        raise UserError(f"The layout of sample {prediction.id} is too large to draw.")
    if not all(image.grids for image in images) or not all(map(_makes_sense, grids)):
        raise UserError(f"The layout of sample {prediction.id} makes no sense.")
    return images


def _makes_sense(grid: Grid) -> bool:
    x1, y1, x2, y2 = grid.area
    step = grid.step or grid.columns
    return (
        min(grid.rows, grid.columns) > 0
        and step >= grid.columns
        and grid.start >= 0
        and grid.start + grid.rows * step < LAST_INDEX
        and all(isfinite(edge) and abs(edge) <= FARTHEST for edge in grid.area)
        and x1 < x2
        and y1 < y2
    )
