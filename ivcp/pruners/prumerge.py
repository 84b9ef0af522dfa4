"""PruMerge: keep what [CLS] attends to, and add to each kept token what its neighbours hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ivcp.core.errors import UserError
from ivcp.core.pruner import TowerLayerPruner
from ivcp.core.selection import Selection, top
from ivcp.core.transfer import to_device
from ivcp.core.view import Signal, View

SIMILARITIES = 2**19
"""Most similarities of keys that are held at once: 2 MB in float32, more to sort them."""


@dataclass(frozen=True, kw_only=True)
class PruMerge(TowerLayerPruner):
    """Keep a few tokens as centres and add their neighbours' features, weighted by attention.

    Centres receive the most attention in the last layer of the vision tower, all of its heads taken
    as one. Before the projector, the features of the tokens with the most similar keys are added to
    those of a centre, each times its own attention. One token more, behind the centres, is the sum
    of all others, weighted likewise. With `plus`, part of the centres is spread over the image.

    Paper: PruMerge (arXiv 2403.15388); release for LLaVA, fine-tuned for it.
    Differs from the reference: the budget is a ratio of an image's tokens, over all of its tiles,
    and half of the centres of `plus` are evenly spaced among the tokens that are none yet
    (`adaptive` gives the release's numbers, of each image instead of each batch); no token is a
    centre twice, samples reach the last token, any image has a centre. Centres stay in the order of
    the image, not of attention, and keep their positions (`renumber` gives gapless ones); the token
    behind them takes that of the best other. Without [CLS], all patches pay the attention.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, the one behind the centres included, in
            (0, 1]; has no effect with `adaptive`.
        renumber: New positions of kept tokens, as in `Renumbering` (release: true).
        tower_layer: Layer of the vision tower whose attention and keys are read; negative numbers
            count from its end (release: the last).
        plus: Whether some centres are spread over the image, PruMerge+ (release: yes).
        adaptive: Whether there are as many centres as outliers of attention, 1.5 times the distance
            of the quartiles above the third (release: yes); `plus` then adds every n-th token, n
            being a third of the tokens a centre. The host waits for their number.
        neighbours: Tokens that are added to a centre; with 0 nothing is merged (release: 32).
    """

    tower_layer: int = -1
    plus: bool = False
    adaptive: bool = False
    neighbours: int = 32

    needs: ClassVar[frozenset[Signal]] = frozenset(
        {"tower_attention", "tower_keys", "tower_features"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours < 0:
            raise UserError(f"neighbours must be at least 0; got {self.neighbours}.")

    def fills_ratio(self) -> bool:
        return not self.adaptive

    def select(self, view: View, stage: int) -> Selection:
        attention = view.tower_attention(self.tower_layer, heads="joined")
        count, target = len(attention), self.target(view)
        if self.adaptive:  # any token that is left may be merged
            target, (ranked, spread) = count, self._outliers(attention)
        elif target >= count:
            return Selection(torch.arange(count, device=attention.device))
        else:
            number = target - (self.neighbours > 0 and target > 1)  # one is left for the others
            spaced, order = number // 2 if self.plus else 0, top(attention, count)
            ranked, rest = order[: number - spaced], order[number - spaced :].sort().values
            spread = rest[torch.arange(spaced, device=rest.device) * len(rest) // max(1, spaced)]
        centers, order = torch.cat([ranked, spread]).sort()
        found = Selection(centers, {"spread": order >= len(ranked)})
        if not self.neighbours:
            return found
        values = view.tower_features().float()
        merged = self._merged(view, centers, attention, values)
        if len(centers) < target:
            merged.append(attention.index_fill(0, centers, 0)[None] @ values)
        states = view.project(torch.cat(merged).to(view.tower_features().dtype))
        kept, others = states[: len(centers)], states[len(centers) :]
        at = top(attention.index_fill(0, centers, -1), len(others))
        return replace(found, states=kept, merged_at=at, merged_states=others)

    def _outliers(self, attention: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens with outlying attention, best first, and with `plus` every n-th of the others."""
        host = attention.cpu()
        first, third = host.quantile(torch.tensor([0.25, 0.75]))
        number = max(1, int((host > third + 1.5 * (third - first)).sum()))
        ranked, step = top(host, number), max(1, len(host) // number // 3)
        spread = torch.arange(0, len(host) if self.plus else 0, step)
        spread = spread[~torch.isin(spread, ranked)]
        return to_device(ranked, attention.device), to_device(spread, attention.device)

    def _merged(
        self, view: View, centers: Tensor, attention: Tensor, values: Tensor
    ) -> list[Tensor]:
        """(K', F) features of a few centres at a time, each plus those of its neighbours."""
        keys = view.tower_keys(self.tower_layer).transpose(0, 1).flatten(1)  # (V, H D)
        keys = normalize(keys.float(), dim=-1)
        near, merged = min(self.neighbours, len(keys) - 1), []
        for own in torch.split(centers, max(1, SIMILARITIES // len(keys))):
            similarity = (keys[own] @ keys.T).scatter_(1, own[:, None], -2)  # not to itself
            nearest = similarity.sort(descending=True, stable=True).indices[:, :near]
            weights = similarity.zero_().scatter_(1, nearest, attention[nearest])
            merged.append(weights.scatter_(1, own[:, None], 1) @ values)
        return merged
