"""IVC tokens only: the half of IVC-Prune that looks at positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ivcp.core.devices import to_device
from ivcp.core.pruner import Pruner, Signal, Stage, View
from ivcp.core.rope import rotation_scores
from ivcp.core.selection import ROLES, Selection, ranks, top


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
        cut_cache: Whether they also leave the caches of earlier layers (paper: yes).
        renumber: Whether surviving tokens get gapless positions (paper: no).
    """

    layer: int = 16
    cut_cache: bool = True
    renumber: bool = False

    needs: ClassVar[frozenset[Signal]] = frozenset({"positions"})

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(self.layer, self.cut_cache),)

    def renumbers(self) -> bool:
        return self.renumber

    def select(self, view: View, stage: int) -> Selection:
        cosine, sine = rotation_scores(view.positions(), view.inverse_frequencies())
        windows = view.image.windows
        rank = torch.minimum(ranks(cosine, windows), ranks(sine, windows))
        if len(windows) > 1:  # every window gives the same part of its tokens
            sizes = torch.tensor([count for _, count in windows])
            rank = rank / to_device(sizes.repeat_interleave(sizes), rank.device)
        keep = top(-rank, self.target(view)).sort().values
        return Selection(keep, torch.full_like(keep, ROLES.index("ivc")))
