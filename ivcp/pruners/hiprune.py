"""HiPrune: keep what a middle layer of the vision tower looks at, and its deep summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ivcp.core.depths import Auto
from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout
from ivcp.core.pruner import TowerPruner
from ivcp.core.selection import Selection, top
from ivcp.core.transfer import to_device
from ivcp.core.view import Signal, View

OBJECT_DEPTH = 1 / 3
"""Of the release's object layer: 8 of the 24 layers of CLIP come before it."""


@dataclass(frozen=True, kw_only=True)
class HiPrune(TowerPruner):
    """Keep anchors on objects, their neighbours, and what a deep layer attends to.

    Anchors are the tokens that receive the most attention in a middle layer of the vision tower,
    which looks at objects. The tokens above, below and beside an anchor are kept with it. The rest
    of the budget goes to the tokens that receive the most attention in a late layer, which holds
    global information. All patches pay attention, [CLS] is one of them.

    Paper: HiPrune (arXiv 2508.00553); release for LLaVA and Qwen2.5-VL.
    Differs from the reference: the budget is a ratio of an image's tokens, over all of its tiles
    and exact, where the release for Qwen2.5-VL may pick a token twice; where anchors and neighbours
    exceed it, anchors come first, then the neighbours with the most late attention. Neighbours are
    those in the anchor's tile or frame (`wrap` gives the release's). Tokens keep their original
    positions, as in the release for Qwen2.5-VL (`renumber` gives those for LLaVA).

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        renumber: New positions of kept tokens, as in `Renumbering` (release: true for LLaVA).
        object_layer: Layer of the vision tower that finds anchors, 0 for the first; negative
            numbers count from its end; "auto" is the layer behind a third of the tower (release: 8
            of 24; for Qwen2.5-VL 15 of 32).
        tower_layer: Layer that ranks the others (release: the second to last; for Qwen2.5-VL the
            last).
        alpha: Part of the budget for anchors with four neighbours each, in [0, 1] (release: 0.1).
        wrap: Whether neighbours are those of a sequence of rows: a row's last token and the next
            row's first are neighbours, and what would lie before the first or behind the last token
            of the image is that token (release: yes, with 24 tokens a row for LLaVA).
    """

    object_layer: int | Auto = "auto"
    tower_layer: int = -2
    alpha: float = 0.1
    wrap: bool = False

    needs: ClassVar[frozenset[Signal]] = frozenset({"tower_attention"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha must lie in [0, 1]; got {self.alpha!r}.")

    def tower_layers(self) -> tuple[int | float, ...]:
        # the tower's depth is not known here: a fraction stands for a layer of any
        first = OBJECT_DEPTH if self.object_layer == "auto" else self.object_layer
        return first, self.tower_layer

    def select(self, view: View, stage: int) -> Selection:
        objects, late = (view.tower_attention(layer, "all") for layer in self.tower_layers())
        count, target, device = len(late), self.target(view), late.device
        if target >= count:
            return Selection(torch.arange(count, device=device))
        anchors = top(objects, round(self.alpha * target / 5))  # 5: with the four around it
        around = to_device(neighbours(view.image, self.wrap), device)[anchors]  # (A, 4)
        turn = torch.zeros(count, dtype=torch.long, device=device)
        turn = turn.index_fill(0, around.flatten(), 1).index_fill(0, anchors, 2)
        order = top(late, count)
        keep = order[top(turn[order], target)].sort().values
        return Selection(keep, {"buffer": turn[keep] == 1, "anchor": turn[keep] == 2})


def neighbours(image: ImageLayout, wrap: bool) -> Tensor:
    """(V, 4) tokens left, right, above and below; the token itself where there is none, on the CPU.

    Args:
        image: The image.
        wrap: Whether they are those of a sequence of rows, instead of those of a grid.
    """
    parts = []
    for grid, (start, count) in zip(image.grids, image.spans, strict=True):
        index, offsets = torch.arange(count), torch.tensor([-1, 1, -grid.columns, grid.columns])
        near = index[:, None] + offsets
        if wrap:
            parts.append((start + near).clamp(0, image.length - 1))
            continue
        column = index % grid.columns
        inside = (near >= 0) & (near < count)
        inside[:, 0] &= column > 0
        inside[:, 1] &= column < grid.columns - 1
        parts.append(start + torch.where(inside, near, index[:, None]))
    return torch.cat(parts)
