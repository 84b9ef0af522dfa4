"""Foreground tokens only: the half of IVC-Prune that looks at the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ivcp.core.devices import to_device
from ivcp.core.errors import UserError
from ivcp.core.pruner import LayerPruner
from ivcp.core.selection import Selection, ranks, top
from ivcp.core.similarity import foreground_scores, padding
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class ForegroundOnly(LayerPruner):
    """Keep the tokens that the prompt is about, found in two stages by value similarity.

    The text's value states pick a few seeds; text and seeds together score all visual tokens. Of an
    image with a thumbnail, the thumbnail is scored, and tiles take the scores of what they show.

    Paper: IVC-Prune (arXiv 2602.03060), the ablation without IVC tokens.
    Differs from the reference: nothing known.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        seed_ratio: Seeds as a fraction of the visual tokens, in [0, 1]; 0 goes without seeds
            (release: 0.01, at least one).
    """

    seed_ratio: float = 0.01

    needs: ClassVar[frozenset[Signal]] = frozenset({"values"})
    whole_images: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.seed_ratio <= 1:
            raise UserError(f"seed_ratio must lie in [0, 1]; got {self.seed_ratio!r}.")

    def select(self, view: View, stage: int) -> Selection:
        image, target = view.image, self.target(view)
        first, size = image.global_view
        text, visual = view.values()
        seeds = max(1, round(self.seed_ratio * size)) if self.seed_ratio else 0
        whole = slice(first, first + size)
        blank = padding(image, visual.device)
        scores, picked = foreground_scores(
            text, visual[:, whole], seeds, blank=None if blank is None else blank[whole]
        )
        rank = ranks(scores, [(0, size)])[to_device(image.thumbnail_index, scores.device)]  # (V,)
        rank[first + picked] -= size  # seeds stay, best first
        if blank is not None:
            rank += blank * 2 * size
        keep = top(-rank, target).sort().values
        foreground = torch.ones_like(rank, dtype=torch.bool)
        seed = torch.zeros_like(foreground).index_fill(0, first + picked, True)
        return Selection(keep, {"foreground": foreground[keep], "seed": seed[keep]})
