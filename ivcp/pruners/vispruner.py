"""VisPruner: keep what the vision tower attends to, and tokens that differ from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ivcp.core.errors import UserError
from ivcp.core.pruner import TowerLayerPruner
from ivcp.core.selection import Selection, top
from ivcp.core.view import Signal, View

REMOVED = 8
"""Most tokens that a round drops, as in the release."""
HELD = 2**22
"""Most similarities that are held at once: 16 MB in float32."""


@dataclass(frozen=True, kw_only=True)
class VisPruner(TowerLayerPruner):
    """Keep the tokens that receive the most attention, and thin out the others until few are alike.

    The first part of the budget goes to important tokens, which receive the most attention in a
    late layer of the vision tower. The others, in the order of their attention, are thinned in
    rounds: each splits the list into even and odd places and drops the even ones that are most
    similar to an odd one, by the cosine of their features, until the rest of the budget is left.
    With `important_ratio=1` the method is FasterVLM.

    Paper: VisPruner (arXiv 2412.01818); release for LLaVA.
    Differs from the reference: the budget is a ratio of an image's tokens, over all of its tiles;
    tokens keep their original positions (`renumber` gives the release's gapless ones); lists of odd
    length and budgets of a few tokens work, where the release stops or keeps too few: the last
    token of an odd list is even, and a round drops no more than there are even places; towers
    without [CLS] rank by the attention from all patches. A change of the features in the last bits
    changes many of the thinned tokens, so 16-bit runs of two implementations do not keep the same.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        renumber: New positions of kept tokens, as in `Renumbering` (release: true).
        tower_layer: Layer of the vision tower whose attention is read; negative numbers count from
            its end (release: the second to last).
        important_ratio: Part of the budget for important tokens, in [0, 1], rounded down (release:
            0.5; 0.75 for MME with 64 tokens).
    """

    important_ratio: float = 0.5

    needs: ClassVar[frozenset[Signal]] = frozenset({"tower_attention", "tower_features"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important_ratio <= 1:
            raise UserError(f"important_ratio must lie in [0, 1]; got {self.important_ratio!r}.")

    def select(self, view: View, stage: int) -> Selection:
        target, attention = self.target(view), view.tower_attention(self.tower_layer)
        count = len(attention)
        if target >= count:
            return Selection(torch.arange(count, device=attention.device))
        order, important = top(attention, count), int(target * self.important_ratio)
        kept = order[:important]
        if important < target:
            rest = order[important:]
            left = thinned(view.tower_features()[rest], target - important)
            kept = torch.cat([kept, rest[left]])
        kept, rank = kept.sort()
        return Selection(kept, {"important": rank < important})


def thinned(features: Tensor, count: int) -> Tensor:
    """(count,) indices of rows that are left once the rows most like others are dropped.

    Args:
        features: (N, F) features, in the order in which they are split.
        count: Number of rows to leave, at least 1.
    """
    features = normalize(features.float(), dim=-1)
    left = torch.arange(len(features), device=features.device)
    held: Tensor | None = None
    while len(left) > count:
        if held is None and len(left) ** 2 <= HELD:  # from here on, similarities are looked up
            rows, left = left, torch.arange(len(left), device=left.device)
            features = features[rows]
            held = features @ features.T
        even, odd = left[::2], left[1::2]
        if held is None:
            others, chunks = features[odd].T, torch.split(even, max(1, HELD // len(odd)))
            nearest = torch.cat([(features[part] @ others).amax(-1) for part in chunks])
        else:
            nearest = held[even[:, None], odd].amax(-1)
        drop = min(REMOVED, len(left) - count, len(even))
        ranked = even[top(nearest, len(even))]
        left = torch.cat([ranked[drop:], odd])
    return left if held is None else rows[left]
