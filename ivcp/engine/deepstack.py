"""Visual features that are added behind early layers (DeepStack), for the remaining tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class DeepStack:
    """Adds the features of layer `i` to the visual tokens that remain behind it.

    Source: DeepStack (arXiv 2406.04334), as Qwen3-VL applies it. A merged token takes the features
    of its cluster's centre, whose position it has.

    Args:
        mask: (B, S) True at visual tokens of the rows that enter layer 0.
        features: For each of the first layers, (number of True, C).
    """

    def __init__(self, mask: Tensor, features: Sequence[Tensor]) -> None:
        self.mask, self.features = mask, features
        count = mask.flatten().cumsum(0).view_as(mask)
        self.number = (count - 1).clamp_min(0)  # (B, S) row of a visual token in the features

    def added(self, layer: int, hidden: Tensor, source: Tensor | None) -> Tensor:
        """(B, P, C) output of a layer with its features added.

        Args:
            layer: Index of the layer that has run.
            hidden: (B, P, C) its output.
            source: (B, P) columns at which the tokens entered layer 0; None if none was dropped.
        """
        if layer >= len(self.features):
            return hidden
        mask, number = self.mask.to(hidden.device), self.number.to(hidden.device)
        if source is not None:
            source = source.to(hidden.device)
            mask, number = mask.gather(1, source), number.gather(1, source)
        features = self.features[layer].to(hidden.device, hidden.dtype)
        return torch.where(mask[..., None], hidden + features[number], hidden)
