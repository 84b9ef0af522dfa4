"""HoloV: spread the budget over stretches of the image, by the attention that each receives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ivcp.core.errors import UserError
from ivcp.core.pruner import TowerLayerPruner
from ivcp.core.selection import Selection, ranks, top
from ivcp.core.transfer import to_device
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class HoloV(TowerLayerPruner):
    """Split the budget among crops by their mean attention; each keeps its most attended tokens.

    Crops are runs of the image's tokens in the order of the prompt, of equal length up to one
    token. They share the budget in proportion to the mean attention that their tokens receive in a
    late layer of the vision tower, rounded down; what is left goes one each to those of the largest
    share.

    Paper: HoloV (arXiv 2510.02912); release for LLaVA: 64 tokens, 16 crops.
    Differs from the reference: its score of a crop also has a term for the variance of the
    similarities of the crop's features, but scales that term to a fixed 9 % of the crop's mean
    attention, so it cannot change a share (as long as a crop has 2 tokens and its similarities
    differ); it is left out, and features are not read. A crop that gets more than it has is filled
    up with zeros there; here the surplus goes to crops with tokens left, to the one with the
    largest share for each token that it would then have. Kept tokens stay in the order of the
    image, where the release sorts them by crop and attention, and keep their original positions
    (`renumber` gives those of the release for LLaVA). The budget is a ratio of an image's tokens,
    over all of its tiles, not 64. The release for Qwen2.5-VL pairs attention with the wrong tokens:
    one place off, and in the order of windows. Towers without [CLS] rank by the attention from all
    patches, as that release does.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        renumber: New positions of kept tokens, as in `Renumbering` (release: true for LLaVA).
        tower_layer: Layer of the vision tower whose attention is read; negative numbers count from
            its end (release: the second to last; for Qwen2.5-VL the last).
        crops: Number of runs, at least 1; no more than there are tokens (release: 16; for
            Qwen2.5-VL 1.78 over the ratio, rounded down).
    """

    crops: int = 16

    needs: ClassVar[frozenset[Signal]] = frozenset({"tower_attention"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crops < 1:
            raise UserError(f"crops must be at least 1; got {self.crops}.")

    def select(self, view: View, stage: int) -> Selection:
        target, attention = self.target(view), view.tower_attention(self.tower_layer)
        count, device = len(attention), attention.device
        if target >= count:
            return Selection(torch.arange(count, device=device))
        crops = min(self.crops, count)
        size, longer = divmod(count, crops)
        sizes = torch.full((crops,), size)
        sizes[:longer] += 1
        starts = (sizes.cumsum(0) - sizes).tolist()
        groups = list(zip(starts, sizes.tolist(), strict=True))
        split = longer * (size + 1)
        means = torch.cat([
            attention[:split].view(longer, size + 1).mean(1),
            attention[split:].view(crops - longer, size).mean(1),
        ])  # fmt: skip
        share = means / means.sum().clamp_min(torch.finfo(means.dtype).tiny)
        quota = (share * target).floor()
        quota += ranks(share, [(0, crops)]) < target - quota.sum()
        crop = to_device(torch.arange(crops).repeat_interleave(sizes), device)
        rank = ranks(attention, groups)  # of each token within its crop
        # Tokens within their crop's quota come first; a surplus goes to the best of the others.
        due = (share[crop] / (rank + 1)).masked_fill(rank < quota[crop], torch.inf)
        return Selection(top(due, target).sort().values)
