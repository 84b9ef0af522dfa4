"""DivPrune: keep tokens of which no two are alike, whatever the question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ivcp.core.depths import Auto
from ivcp.core.pruner import LayerPruner
from ivcp.core.selection import Selection
from ivcp.core.view import Signal, View

SCORES = 2**21
"""Most similarities that are held at once: 8 MB in float32."""


@dataclass(frozen=True, kw_only=True)
class DivPrune(LayerPruner):
    """Keep the tokens whose smallest distance from each other is as large as a greedy choice gets.

    The distance of two tokens is 1 minus the cosine of their states; before layer 0, these are the
    embeddings that enter the language model. The first token is the one that is farthest from its
    nearest neighbour. Each further one is farthest from the nearest of those that were picked.

    Paper: DivPrune (arXiv 2503.02175); release: before layer 0.
    Differs from the reference: where all that are left equal picked tokens, none is picked twice;
    one choice covers all tiles of an image. Which positions the release gives was not examined.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1] (release: 0.098).
        layer: Decoder layer before which to prune, 0 .. L-1; 0 is before the language model.
        prune_earlier_kv: Whether to prune the caches of earlier layers, too.
        renumber: New positions of kept tokens, as in `Renumbering`.
    """

    layer: int | Auto = 0

    needs: ClassVar[frozenset[Signal]] = frozenset({"hidden"})

    def select(self, view: View, stage: int) -> Selection:
        target, count = self.target(view), len(view.index)
        if target >= count:
            return Selection(torch.arange(count, device=view.index.device))
        return Selection(most_diverse(view.hidden(), target).sort().values)


@torch.no_grad()
def most_diverse(states: Tensor, count: int) -> Tensor:
    """(count,) indices in the order of a greedy max-min choice by cosine; ties go to the lower.

    Args:
        states: (V, C) states of two or more tokens.
        count: Number of tokens, 1 .. V.
    """
    states = normalize(states.float(), dim=-1).nan_to_num(0)  # so that none is picked twice
    pick = _nearest_similarity(states).argmin(0, keepdim=True)
    picks = [pick]
    closest = torch.full_like(states[:, 0], -torch.inf)  # (V,) similarity to the nearest pick
    while len(picks) < count:
        # an index of one element instead of a number, for which the host would wait
        closest = torch.maximum(closest, states @ states[pick][0])
        closest.index_fill_(0, pick, torch.inf)
        pick = closest.argmin(0, keepdim=True)
        picks.append(pick)
    return torch.cat(picks)


def _nearest_similarity(states: Tensor) -> Tensor:
    """(V,) similarity of each token to the most similar other one, a few rows at a time."""
    step, nearest = max(1, SCORES // len(states)), []
    for start in range(0, len(states), step):
        similarity = states[start : start + step] @ states.T
        similarity.diagonal(start).fill_(-torch.inf)  # of each token to itself
        nearest.append(similarity.amax(-1))
    return torch.cat(nearest)
