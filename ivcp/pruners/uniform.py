"""Control: keep a regular grid of visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ivcp.core.devices import to_device
from ivcp.core.layout import Grid
from ivcp.core.pruner import LayerPruner
from ivcp.core.selection import Selection
from ivcp.core.view import View


@dataclass(frozen=True, kw_only=True)
class UniformGrid(LayerPruner):
    """Keep evenly spaced tokens in evenly spaced rows, exactly as many as the budget says.

    An image of several grids (tiles, thumbnail, frames) deals the budget to them in proportion to
    their size. About `sqrt(keep_ratio)` of a grid's rows stay; its budget is dealt to them as
    equally as possible, and each row's share is spread over its columns.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
    """

    whole_images: ClassVar[bool] = True

    def select(self, view: View, stage: int) -> Selection:
        target, total = self.target(view), view.image.length
        keep, dealt = [], 0
        for grid, (first, count) in zip(view.image.grids, view.image.spans, strict=True):
            share = target * (first + count) // total - dealt
            dealt += share
            if share:
                keep.append(first + self._spread(grid, share))
        return Selection(to_device(torch.cat(keep), view.index.device))

    def _spread(self, grid: Grid, target: int) -> Tensor:
        """(target,) ascending indices into a grid's tokens."""
        rows, columns = grid.rows, grid.columns
        used = min(rows, target, max(-(-target // columns), round(rows * self.keep_ratio**0.5)))
        number = torch.arange(target)
        line = number * used // target  # which of the used rows
        first = -(-line * target // used)  # number of the first token in that row
        share = -(-(line + 1) * target // used) - first
        row = (2 * line + 1) * rows // (2 * used)
        column = (2 * (number - first) + 1) * columns // (2 * share)
        spread: Tensor = row * columns + column
        return spread
