"""FastV: keep the visual tokens that the last prompt token attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ivcp.core.depths import Auto
from ivcp.core.pruner import ScorePruner
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class FastV(ScorePruner):
    """Rank visual tokens by the attention that the last prompt token pays them in the layer before.

    Early layers gather what matters, so later layers can do without the tokens that hardly receive
    attention.

    Paper: FastV (arXiv 2403.06764), Algorithm 1; defaults K = 2, R = 50 %.
    Differs from the reference: only the last row of the attention is computed, so every attention
    backend works; the budget is a ratio instead of a number of tokens.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        layer: Decoder layer before which to prune (the paper's K), 1 .. L-1.
        prune_earlier_kv: Whether to prune the caches of earlier layers, too (reference: no).
    """

    layer: int | Auto = 2
    prune_earlier_kv: bool = False

    needs: ClassVar[frozenset[Signal]] = frozenset({"attention"})
    vectorized: ClassVar[bool] = True

    def score(self, view: View) -> Tensor:
        return view.last_attention()
