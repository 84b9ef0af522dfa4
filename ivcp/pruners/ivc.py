"""IVC tokens only: the half of IVC-Prune that looks at positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ivcp.core.pruner import Pruner, Signal, Stage, View
from ivcp.core.rope import rotation_scores
from ivcp.core.selection import ROLES, Selection, top


@dataclass(frozen=True, kw_only=True)
class IVCOnly(Pruner):
    """Keep the tokens whose rotary rotation is nearest the identity or nearest 90 degrees.

    The whole budget goes to implicit visual coordinates, in turn by mean cosine and by mean sine of
    the rotary angles. It depends on the grid and its place in the prompt alone.

    Paper: IVC-Prune (arXiv 2602.03060), the ablation without foreground tokens.
    Differs from the reference: there the two lists take a fixed tenth of the tokens each and their
    overlap stays unfilled; here both lists grow until their union fills the budget.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        layer: Decoder layer before which tokens leave, 0 .. L-1 (16: Qwen2.5-VL-7B).
    """

    layer: int = 16

    needs: ClassVar[frozenset[Signal]] = frozenset({"positions"})

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(self.layer),)

    def select(self, view: View, stage: int) -> Selection:
        cosine, sine = rotation_scores(view.positions(), view.inverse_frequencies())
        rank = torch.minimum(_ranks(cosine), _ranks(sine))  # union of the k best grows with k
        keep = top(-rank, self.target(view)).sort().values
        return Selection(keep, torch.full_like(keep, ROLES.index("ivc")))


def _ranks(scores: torch.Tensor) -> torch.Tensor:
    """(V,) place of each token in the order of `top`."""
    order = top(scores, len(scores))
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
