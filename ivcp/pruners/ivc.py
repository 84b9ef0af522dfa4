"""IVC tokens only: the half of IVC-Prune that looks at positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ivcp.core.pruner import ScorePruner
from ivcp.core.rope import ivc_rank
from ivcp.core.selection import Selection
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class IVCOnly(ScorePruner):
    """Keep the tokens whose rotary rotation is nearest the identity or nearest 90 degrees.

    All of the budget goes to implicit visual coordinates, in turn by mean cosine and by mean sine
    of the rotary angles. The selection depends only on the grid and its position in the prompt.

    Paper: IVC-Prune (arXiv 2602.03060), the ablation without foreground tokens.
    Differs from the reference: there each of the two lists is a tenth of the tokens, and fewer are
    kept where they overlap; here both lists grow until their union fills the budget.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({"positions"})
    whole_images: ClassVar[bool] = True

    def score(self, view: View) -> Tensor:
        return -ivc_rank(view)

    def select(self, view: View, stage: int) -> Selection:
        selection = super().select(view, stage)
        ivc = torch.ones_like(selection.keep, dtype=torch.bool)
        return replace(selection, reasons={"ivc": ivc})
