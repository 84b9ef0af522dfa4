"""Control: keep a regular grid of visual tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ivcp.core.pruner import Pruner, Stage, View
from ivcp.core.selection import Selection


@dataclass(frozen=True, kw_only=True)
class UniformGrid(Pruner):
    """Keep evenly spaced tokens in evenly spaced rows, exactly as many as the budget says.

    About `sqrt(keep_ratio)` of the rows stay; the budget is dealt to them as equally as possible,
    and each row's share is spread over its columns.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        layer: Decoder layer before which tokens leave, 0 .. L-1.
        cut_cache: Whether they also leave the caches of earlier layers.
    """

    layer: int = 16
    cut_cache: bool = True

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(self.layer, self.cut_cache),)

    def select(self, view: View, stage: int) -> Selection:
        rows, columns, target = view.image.rows, view.image.columns, self.target(view)
        used = min(rows, target, max(-(-target // columns), round(rows * self.keep_ratio**0.5)))
        number = torch.arange(target, device=view.index.device)
        line = number * used // target  # which of the used rows, (K,)
        first = -(-line * target // used)  # number of the first token in that row
        share = -(-(line + 1) * target // used) - first
        row = (2 * line + 1) * rows // (2 * used)
        column = (2 * (number - first) + 1) * columns // (2 * share)
        return Selection(row * columns + column)
