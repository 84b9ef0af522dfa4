"""Foreground tokens only: the half of IVC-Prune that looks at the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ivcp.core.errors import UserError
from ivcp.core.parts import parts_of
from ivcp.core.pruner import LayerPruner
from ivcp.core.selection import Selection, ranks, top
from ivcp.core.similarity import foreground_scores, seed_count
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class ForegroundOnly(LayerPruner):
    """Keep the tokens that the prompt is about, found in two stages by value similarity.

    The visual tokens most similar to the text are seeds; text and seeds together score all visual
    tokens. Of an image with a thumbnail, only the thumbnail is scored; a tile's token takes the
    score of the thumbnail token that shows its centre.

    Paper: IVC-Prune (arXiv 2602.03060), the ablation without IVC tokens.
    Differs from the reference: nothing known.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        seed_ratio: Seeds as a fraction of the visual tokens, in [0, 1]; 0 uses no seeds (release:
            0.01, at least one seed).
    """

    seed_ratio: float = 0.01

    needs: ClassVar[frozenset[Signal]] = frozenset({"values"})
    vectorized: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.seed_ratio <= 1:
            raise UserError(f"seed_ratio must lie in [0, 1]; got {self.seed_ratio!r}.")

    def select(self, view: View, stage: int) -> Selection:
        parts, target = parts_of(view), self.target(view)
        start, size = parts.whole
        scored, padding = slice(start, start + size), parts.padding
        text, visual = view.values()
        blank = None if padding is None else padding[scored]
        scores, seeds = foreground_scores(
            text, visual[:, scored], seed_count(self.seed_ratio, size), blank=blank
        )
        rank = ranks(scores, [(0, size)])[parts.cell]  # (V,)
        rank[start + seeds] -= size  # before all others, best first
        if padding is not None:
            rank += padding * 2 * size  # behind all others
        keep = top(-rank, target).sort().values
        foreground = torch.ones_like(rank, dtype=torch.bool)
        seed = torch.zeros_like(foreground).index_fill(0, start + seeds, True)
        return Selection(keep, {"foreground": foreground[keep], "seed": seed[keep]})
