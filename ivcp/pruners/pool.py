"""Control: average pooling of the grid of visual tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ivcp.core.layout import Grid
from ivcp.core.pruner import TowerPruner
from ivcp.core.selection import Selection
from ivcp.core.transfer import to_device
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class AveragePool(TowerPruner):
    """Cut each grid into cells, and give the language model the mean embedding of each cell.

    A cell takes the position of the token in its middle. The grids of an image get parts of the
    budget in proportion to their size. To have exactly as many cells as its part allows, a grid is
    cut into bands of rows, and each band into its own number of cells, equal up to one; there are
    as many bands as make the cells nearly square.

    Attributes:
        keep_ratio: Number of cells, as a fraction of the visual tokens, in (0, 1].
        renumber: New positions of kept tokens, as in `Renumbering`.
        mean: Whether a cell gives the mean of its embeddings; without it, it gives the embedding in
            its middle, which shows what averaging is worth.
    """

    mean: bool = True

    whole_images: ClassVar[bool] = True
    needs: ClassVar[frozenset[Signal]] = frozenset({"hidden"})

    def tower_layers(self) -> tuple[int, ...]:
        return ()

    def select(self, view: View, stage: int) -> Selection:
        target, total = self.target(view), view.image.length
        if target >= total:
            return Selection(torch.arange(total, device=view.index.device))
        cells, middles, assigned = [], [], 0
        for grid, (start, count) in zip(view.image.grids, view.image.spans, strict=True):
            share = target * (start + count) // total - assigned
            if share:
                cell, middle = _cells(grid, share)
                cells.append(cell + assigned)
                middles.append(middle + start)
            else:
                cells.append(torch.full((count,), target))  # of a small grid, nothing is left
            assigned += share
        keep = to_device(torch.cat(middles), view.index.device)
        if not self.mean:
            return Selection(keep)
        merged = {"merged": torch.ones_like(keep, dtype=torch.bool)}
        return Selection(keep, merged, _means(view.hidden(), torch.cat(cells), target))


def _means(states: Tensor, cell: Tensor, count: int) -> Tensor:
    """(count, C) means of (V, C) states over the cells 0 .. count - 1, each of which has some.

    Summed in float32 and in the order of the tokens, on every device.
    """
    order = cell.sort(stable=True).indices
    sizes = torch.bincount(cell, minlength=count)[:count]
    order, starts = order[: int(sizes.sum())], sizes.cumsum(0) - sizes
    order, starts = (to_device(each, states.device) for each in (order, starts))
    return embedding_bag(order, states.float(), starts, mode="mean").to(states.dtype)


def _cells(grid: Grid, count: int) -> tuple[Tensor, Tensor]:
    """(V,) the cell of each token of a grid, and (count,) the token in the middle of each cell."""
    rows, columns = grid.rows, grid.columns
    square = round((count * rows / columns) ** 0.5)
    bands = min(rows, count, max(1, -(-count // columns), square))
    first = -(-torch.arange(bands + 1) * count // bands)  # the first cell of each band
    parts = first.diff()  # cells of each band
    band = torch.arange(rows) * bands // rows  # of each row
    owner = first[band][:, None] + torch.arange(columns) * parts[band][:, None] // columns
    band = torch.arange(bands).repeat_interleave(parts)  # of each cell
    row = _middle(band, rows, bands)
    column = _middle(torch.arange(count) - first[band], columns, parts[band])
    return owner.flatten(), row * columns + column


def _middle(part: Tensor, length: int, parts: Tensor | int) -> Tensor:
    """The middle of a part of the numbers 0 .. length - 1, the lower of two.

    The number `n` belongs to the part `n * parts // length`.
    """
    first = -(-part * length // parts)
    last = -(-(part + 1) * length // parts) - 1
    return (first + last) // 2
