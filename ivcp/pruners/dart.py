"""DART: keep a few pivots, and the tokens that duplicate them least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ivcp.core.depths import Auto
from ivcp.core.errors import UserError
from ivcp.core.pruner import LayerPruner
from ivcp.core.selection import Selection, top
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class DART(LayerPruner):
    """Let a few pivots of image and text take turns in picking the tokens that are least like them.

    Pivots are the visual tokens and the text queries with the longest keys in the layer before (sum
    of absolute values over all heads). The pivots of the image are kept. In turn, each pivot picks
    its share of the tokens that are left: those with the lowest cosine to it, by the hidden states
    behind the model's final norm.

    Paper: DART (arXiv 2502.11494); release for LLaVA-1.5: layer 2, four and four pivots.
    Differs from the reference: exactly the budget is kept, pivots of the image included, and the
    first pivots take the remainder of the division (release: the share is cut to an integer, and
    the image's pivots come on top); pivots pick in the order of the prompt, those of the image
    first (release: in the order of a Python set of positions); text pivots are text queries.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1] (release: 132 of 576).
        layer: Decoder layer before which to prune, 1 .. L-1 (release: 2).
        prune_earlier_kv: Whether to prune the caches of earlier layers, too (release: no).
        renumber: New positions of kept tokens, as in `Renumbering` (release: false).
        image_pivots: Pivots among the visual tokens, 0 or more; no more than the budget (release:
            4).
        text_pivots: Pivots among the text queries, 0 or more (release: 4).
    """

    layer: int | Auto = 2
    prune_earlier_kv: bool = False
    image_pivots: int = 4
    text_pivots: int = 4

    needs: ClassVar[frozenset[Signal]] = frozenset({"keys", "hidden"})
    vectorized: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.image_pivots, self.text_pivots) < 0 or not self.image_pivots + self.text_pivots:
            raise UserError(
                "image_pivots and text_pivots must not be negative, and not both 0; got "
                f"{self.image_pivots} and {self.text_pivots}."
            )

    def select(self, view: View, stage: int) -> Selection:
        target, count = self.target(view), len(view.index)
        if target >= count:
            return Selection(torch.arange(count, device=view.index.device))
        text_keys, keys = view.keys()
        kept = _longest(keys, min(self.image_pivots, target))
        others = view.final_norm(view.text_hidden()[_longest(text_keys, self.text_pivots)])
        visual = view.final_norm(view.hidden())
        pivots = self.in_turn(torch.cat([visual[kept], others]))
        cosine = normalize(pivots.float(), dim=-1) @ normalize(visual.float(), dim=-1).T  # (P, V)
        unlike = (-cosine).index_fill(1, kept, -torch.inf)
        share, remainder = divmod(target - len(kept), len(pivots))
        picks = [kept]
        for number in range(len(pivots)):
            picks.append(top(unlike[number], share + (number < remainder)))
            unlike = unlike.index_fill(1, picks[-1], -torch.inf)
        keep, order = torch.cat(picks).sort()
        return Selection(keep, {"pivot": order < len(kept)})

    def in_turn(self, pivots: Tensor) -> Tensor:
        """(P, C) states of the pivots in the order in which they pick.

        Args:
            pivots: (P, C) states, those of the image first, each group in the order of the prompt.
        """
        return pivots


def _longest(keys: Tensor, count: int) -> Tensor:
    """(count,) ascending indices of the longest of (G, N, D) keys, or all."""
    return top(keys.abs().sum((0, 2), dtype=torch.float32), count).sort().values
