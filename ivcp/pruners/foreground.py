"""Foreground tokens only: the half of IVC-Prune that looks at the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ivcp.core.devices import to_device
from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner, Signal, Stage, View
from ivcp.core.selection import ROLES, Selection, ranks, top
from ivcp.core.similarity import foreground_scores, padding


@dataclass(frozen=True, kw_only=True)
class ForegroundOnly(Pruner):
    """Keep the tokens that the prompt is about, found in two stages by value similarity.

    The text's value states pick a few seeds; text and seeds together score all visual tokens. Of an
    image with a thumbnail, the thumbnail is scored, and tiles take the scores of what they show.

    Paper: IVC-Prune (arXiv 2602.03060), the ablation without IVC tokens.
    Differs from the reference: nothing known.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        layer: Decoder layer before which tokens leave, 1 .. L-1 (16: Qwen2.5-VL-7B).
        cut_cache: Whether they also leave the caches of earlier layers (paper: yes).
        renumber: Whether surviving tokens get gapless positions (paper: no).
        seed_ratio: Seeds as a fraction of the visual tokens, in [0, 1]; 0 goes without seeds
            (release: 0.01, at least one).
    """

    layer: int = 16
    cut_cache: bool = True
    renumber: bool = False
    seed_ratio: float = 0.01

    needs: ClassVar[frozenset[Signal]] = frozenset({"values"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.seed_ratio <= 1:
            raise UserError(f"seed_ratio must lie in [0, 1]; got {self.seed_ratio!r}.")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(self.layer, self.cut_cache),)

    def renumbers(self) -> bool:
        return self.renumber

    def select(self, view: View, stage: int) -> Selection:
        image, target = view.image, self.target(view)
        first, size = image.overview
        text, visual = view.values()
        seeds = max(1, round(self.seed_ratio * size)) if self.seed_ratio else 0
        whole = slice(first, first + size)
        blank = padding(image, visual.device)
        scores, picked = foreground_scores(
            text, visual[:, whole], seeds, blank=None if blank is None else blank[whole]
        )
        rank = ranks(scores, [(0, size)])[to_device(image.parents, scores.device)]  # (V,)
        rank[first + picked] -= size  # seeds stay, best first
        if blank is not None:
            rank += blank * 2 * size
        roles = torch.full((image.length,), ROLES.index("foreground"), device=scores.device)
        roles[first + picked] = ROLES.index("seed")
        keep = top(-rank, target).sort().values
        return Selection(keep, roles[keep])
