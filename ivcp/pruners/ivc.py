"""IVC tokens only: the half of IVC-Prune that looks at positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ivcp.core.pruner import ScorePruner
from ivcp.core.rope import check_rope_base, ivc_rank
from ivcp.core.selection import Selection
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class IVCOnly(ScorePruner):
    """Keep the tokens whose rotary rotation is nearest the identity or nearest 90 degrees.

    All of the budget goes to implicit visual coordinates, in turn by mean cosine and by mean sine
    of the rotary angles. The selection depends only on the grid and its position in the prompt.

    With another `rope_base` or an `offset`, the same rule chooses tokens that are spread alike but
    are not the model's own coordinates: the matched control of the claim that those are special.

    Paper: IVC-Prune (arXiv 2602.03060), the ablation without foreground tokens.
    Differs from the reference: there each of the two lists is a tenth of the tokens, and fewer are
    kept where they overlap; here both lists grow until their union fills the budget.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        rope_base: Base above 1 of the rotary frequencies, unscaled, for the scores alone; None
            takes the model's own frequencies, scaled as its configuration says.
        offset: Places by which positions are shifted for the scores, in both directions.
    """

    rope_base: float | None = None
    offset: int = 0

    needs: ClassVar[frozenset[Signal]] = frozenset({"positions"})
    vectorized: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rope_base(self.rope_base)

    def score(self, view: View) -> Tensor:
        return -ivc_rank(view, self.rope_base, self.offset)

    def select(self, view: View, stage: int) -> Selection:
        selection = super().select(view, stage)
        ivc = torch.ones_like(selection.keep, dtype=torch.bool)
        return replace(selection, reasons={"ivc": ivc})
