"""Control: keep a regular grid of visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ivcp.core.layout import Grid
from ivcp.core.pruner import LayerPruner
from ivcp.core.selection import Selection
from ivcp.core.transfer import to_device
from ivcp.core.view import View


@dataclass(frozen=True, kw_only=True)
class UniformGrid(LayerPruner):
    """Keep evenly spaced tokens in evenly spaced rows, exactly as many as the budget allows.

    The grids of an image (tiles, thumbnail, frames) get parts of the budget in proportion to their
    size. About `sqrt(keep_ratio)` of a grid's rows are used. They divide the grid's budget as
    equally as possible, and each row spreads its tokens over its columns.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
    """

    whole_images: ClassVar[bool] = True

    def select(self, view: View, stage: int) -> Selection:
        target, total = self.target(view), view.image.length
        keep, assigned = [], 0
        for grid, (start, count) in zip(view.image.grids, view.image.spans, strict=True):
            grid_target = target * (start + count) // total - assigned
            assigned += grid_target
            if grid_target:
                keep.append(start + self._spread(grid, grid_target))
        return Selection(to_device(torch.cat(keep), view.index.device))

    def _spread(self, grid: Grid, target: int) -> Tensor:
        """(target,) ascending indices into a grid's tokens."""
        rows, columns = grid.rows, grid.columns
        used = min(rows, target, max(-(-target // columns), round(rows * self.keep_ratio**0.5)))
        number = torch.arange(target)
        line = number * used // target  # which of the used rows
        row_start = -(-line * target // used)  # number of the row's first token
        in_row = -(-(line + 1) * target // used) - row_start
        # centred: the row in the middle of its band, the token in the middle of its interval
        row = (2 * line + 1) * rows // (2 * used)
        column = (2 * (number - row_start) + 1) * columns // (2 * in_row)
        spread: Tensor = row * columns + column
        return spread
