"""VisionZip: keep what the vision tower attends to, merge the rest before the projector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.pruner import TowerLayerPruner
from ivcp.core.selection import Selection, top
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class VisionZip(TowerLayerPruner):
    """Keep the dominant tokens, which hold most of an image, and merge the rest to a few tokens.

    Tokens that receive the most attention in a late layer of the vision tower are dominant and are
    kept unchanged. Of the others every n-th becomes a target. Each remaining token joins the target
    with the most similar key, and the mean of those that joined is added to the target's features,
    before the projector. Where the tower has a [CLS] token, it is the first of the dominant ones.

    Paper: VisionZip (arXiv 2412.04467); release for LLaVA: 54 dominant and 10 contextual tokens.
    Differs from the reference: the budget is a ratio of an image's tokens, over all of its tiles;
    tokens keep their original positions (`renumber` gives the release's), [CLS] takes that of the
    first dropped token, contextual tokens take those of their targets; towers without [CLS] rank by
    the attention from all patches; towers that merge patches have no [CLS] token to keep.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, merged ones included, in (0, 1].
        tower_layer: Layer of the vision tower that is read; negative numbers count from its end
            (release: the second to last).
        renumber: New positions of kept tokens, as in `Renumbering` (release: true).
        contextual_share: Part of the budget for merged tokens, in [0, 1) (release: 10 of 64).
        keep_cls: Whether [CLS] is kept as one of the tokens (release: yes).
    """

    contextual_share: float = 0.15625
    keep_cls: bool = True

    needs: ClassVar[frozenset[Signal]] = frozenset(
        {"tower_attention", "tower_keys", "tower_features"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.contextual_share < 1:
            raise UserError(f"contextual_share must lie in [0, 1); got {self.contextual_share!r}.")

    def select(self, view: View, stage: int) -> Selection:
        target, attention = self.target(view), view.tower_attention(self.tower_layer)
        count = len(attention)
        if target >= count:
            return Selection(torch.arange(count, device=attention.device))
        contextual = min(round(self.contextual_share * target), target - 1)
        cls = view.tower_cls() if self.keep_cls and target - contextual > 1 else None
        order = top(attention, count)
        kept = target - contextual - (cls is not None)
        dominant, rest = order[:kept].sort().values, order[kept:].sort().values
        step = max(1, len(rest) // max(1, contextual))
        centers = torch.arange(0, len(rest), step, device=rest.device)[:contextual]
        merged_at, merged = [rest[centers]], []
        if contextual:
            merged = [self._merged(view, rest, centers)]
        if cls is not None:  # [CLS] takes the position of the first dropped token that is no target
            merged_at.insert(0, rest[1 if step > 1 and contextual else contextual][None])
            merged.insert(0, cls[:1])
        important = {"dominant": torch.ones_like(dominant, dtype=torch.bool)}
        if not merged:
            return Selection(dominant, important)
        return Selection(
            dominant,
            important,
            merged_at=torch.cat(merged_at),
            merged_states=view.project(torch.cat(merged)),
            merged_before=int(cls is not None),
        )

    def _merged(self, view: View, rest: Tensor, centers: Tensor) -> Tensor:
        """(M, F) features of the targets, each plus the mean of the tokens that joined it."""
        metric = view.tower_keys(self.tower_layer).float().mean(0)[rest]  # (N, D)
        metric = metric / metric.norm(dim=-1, keepdim=True)
        similarity = metric @ metric[centers].T  # (N, M)
        owner = similarity.argmax(-1)
        others = torch.ones(len(rest), 1, device=rest.device).index_fill(0, centers, 0)
        states = view.tower_features()[rest]
        features = states.float()
        sums = features.new_zeros(len(centers), features.shape[1])
        sums.index_add_(0, owner, features * others)
        sizes = others.new_zeros(len(centers), 1).index_add_(0, owner, others)
        return (features[centers] + sums / sizes.clamp_min(1)).to(states.dtype)
