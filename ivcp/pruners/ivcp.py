"""IVC-Prune: implicit visual coordinates and prompt-aware foreground tokens, selected once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner, Signal, Stage, View
from ivcp.core.rope import rotation_scores
from ivcp.core.selection import ROLES, Selection, top
from ivcp.core.similarity import foreground_scores


@dataclass(frozen=True, kw_only=True)
class IVCPrune(Pruner):
    """Keep the tokens that anchor coordinates and the tokens that the prompt is about.

    Rotary positions whose rotation is near the identity or near 90 degrees serve the model as
    reference points for locating objects. These IVC tokens are kept whatever they show; seeds that
    the text's value states point at join them; the best foreground tokens fill the budget. One
    selection at a middle layer cuts the cache of all layers; original positions stay.

    Paper: IVC-Prune (arXiv 2602.03060), Algorithm 1.
    Differs from the reference: scores are float32 and ties go to the lower index (the release ranks
    in bfloat16, where most scores tie); every image of a prompt has its own budget and its own text
    queries; batches; at very small budgets seeds and IVC tokens give way to each other in the order
    IVC, seeds, foreground, so that the budget always holds.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1] (paper: 0.5).
        layer: Decoder layer before which tokens leave, 1 .. L-1 (paper: 16 for Qwen2.5-VL-7B).
        cos_share: Part of the budget for the largest mean cosines, in [0, 1] (release: a fifth).
        sin_share: Part of the budget for the largest mean sines, in [0, 1] (release: a fifth).
        seed_ratio: Seeds as a fraction of the visual tokens, in [0, 1]; 0 goes without seeds
            (release: 0.01, at least one).
    """

    layer: int = 16
    cos_share: float = 0.2
    sin_share: float = 0.2
    seed_ratio: float = 0.01

    needs: ClassVar[frozenset[Signal]] = frozenset({"positions", "values"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cos_share", "sin_share", "seed_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must lie in [0, 1]; got {getattr(self, name)!r}.")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(self.layer),)

    def select(self, view: View, stage: int) -> Selection:
        count, target = len(view.index), self.target(view)
        text, visual = view.values()
        seeds = max(1, round(self.seed_ratio * count)) if self.seed_ratio else 0
        foreground, picked = foreground_scores(text, visual, seeds)
        cosine, sine = rotation_scores(view.positions(), view.inverse_frequencies())

        roles = torch.full((count,), ROLES.index("foreground"), device=foreground.device)
        roles[picked] = ROLES.index("seed")
        roles[top(cosine, round(self.cos_share * target))] = ROLES.index("ivc")
        roles[top(sine, round(self.sin_share * target))] = ROLES.index("ivc")
        # Scores are at most 1: whole numbers on top rank IVC before seeds before foreground.
        first = (roles == ROLES.index("ivc")) * 4 + (roles == ROLES.index("seed")) * 2
        keep = top(foreground + first, target).sort().values
        return Selection(keep, roles[keep])
