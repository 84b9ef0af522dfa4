"""IVC-Prune: implicit visual coordinates and prompt-aware foreground tokens, selected once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ivcp.core.devices import to_device
from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner, Signal, Stage, View
from ivcp.core.rope import rotation_scores
from ivcp.core.selection import ROLES, Selection, budget, ranks, top
from ivcp.core.similarity import foreground_scores, padding


@dataclass(frozen=True, kw_only=True)
class IVCPrune(Pruner):
    """Keep the tokens that anchor coordinates and the tokens that the prompt is about.

    Rotary positions whose rotation is near the identity or near 90 degrees serve the model as
    reference points for locating objects. These IVC tokens are kept whatever they show; seeds that
    the text's value states point at join them; the best foreground tokens fill the budget. One
    selection at a middle layer cuts the cache of all layers; original positions stay.

    Each tile, thumbnail and frame of an image has its own IVC tokens. Of an image with a thumbnail,
    the thumbnail is scored; its foreground, and the tile tokens that show the same places, come
    before what else the thumbnail holds, and that before the rest of the tiles. Padding is
    neither seed nor foreground; IVC tokens may lie on it.

    Paper: IVC-Prune (arXiv 2602.03060), Algorithm 1.
    Differs from the reference: scores are float32 and ties go to the lower index (the release ranks
    in bfloat16, where most scores tie); every image of a prompt has its own budget and its own text
    queries; batches; where the budget is too small for all, IVC tokens stay before seeds, seeds
    before foreground, so that the budget always holds (the release's InternVL code drops the last
    IVC tokens of the thumbnail instead, and misses the budget where the thumbnail runs out).

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1] (paper: 0.5).
        layer: Decoder layer before which tokens leave, 1 .. L-1 (paper: 16 for Qwen2.5-VL-7B).
        cut_cache: Whether they also leave the caches of earlier layers (paper: yes).
        renumber: Whether surviving tokens get gapless positions (paper: no).
        cos_share: Part of the budget for the largest mean cosines, in [0, 1] (release: a fifth).
        sin_share: Part of the budget for the largest mean sines, in [0, 1] (release: a fifth).
        seed_ratio: Seeds as a fraction of the visual tokens, in [0, 1]; 0 goes without seeds
            (release: 0.01, at least one).
        softmax: Over which tokens value similarities are normalised: "image", or "prompt" (release
            for LLaVA and InternVL).
        foreground_share: None fills the budget with foreground. A number in [0, 1] is the part of
            the budget that foreground takes, whether or not its tokens are IVC tokens too; less
            than the budget is kept then (release for LLaVA: two fifths).
    """

    layer: int = 16
    cut_cache: bool = True
    renumber: bool = False
    cos_share: float = 0.2
    sin_share: float = 0.2
    seed_ratio: float = 0.01
    softmax: Literal["image", "prompt"] = "image"
    foreground_share: float | None = None

    needs: ClassVar[frozenset[Signal]] = frozenset({"positions", "values"})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cos_share", "sin_share", "seed_ratio", "foreground_share"):
            value = getattr(self, name)
            if not (value is None and name == "foreground_share") and not 0 <= value <= 1:
                raise UserError(f"{name} must lie in [0, 1]; got {value!r}.")
        if self.softmax not in ("image", "prompt"):
            raise UserError(f"softmax must be image or prompt; got {self.softmax!r}.")

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(self.layer, self.cut_cache),)

    def renumbers(self) -> bool:
        return self.renumber

    def select(self, view: View, stage: int) -> Selection:
        image, target = view.image, self.target(view)
        first, size = image.overview
        whole = slice(first, first + size)
        text, visual = view.values()
        others = None
        if self.softmax == "prompt":
            others = torch.cat(
                [view.other_values(), visual[:, :first], visual[:, first + size :]], 1
            )
        seeds = max(1, round(self.seed_ratio * size)) if self.seed_ratio else 0
        blank = padding(image, visual.device)
        scores, picked = foreground_scores(
            text, visual[:, whole], seeds, others, None if blank is None else blank[whole]
        )
        rank = ranks(scores, [(0, size)])  # (size,)
        parents = to_device(image.parents, scores.device)
        ivc = self._reference_points(view)
        roles = torch.full((image.length,), ROLES.index("foreground"), device=scores.device)
        roles[first + picked] = ROLES.index("seed")
        roles = roles.masked_fill(ivc, ROLES.index("ivc"))
        if self.foreground_share is not None:
            best = rank < round(self.foreground_share * budget(self.keep_ratio, size))
            keep = (ivc | best[parents]).nonzero()[:, 0]
            return Selection(keep, roles[keep])
        # 4: IVC, 3: seeds, 2: foreground and what shows the same, 1: the overview's rest
        best = self._best(rank, ivc[whole])
        level = best[parents] * 2
        level[whole].clamp_min_(1)
        level[first + picked] = 3
        if blank is not None:
            level = level.masked_fill(blank, -1)
        level = level.masked_fill(ivc, 4)
        keep = top(level * size - rank[parents], target).sort().values
        return Selection(keep, roles[keep])

    def _reference_points(self, view: View) -> Tensor:
        """(V,) which tokens are IVC tokens."""
        cosine, sine = rotation_scores(view.positions(), view.inverse_frequencies())
        windows = view.image.windows
        picks = torch.zeros_like(cosine, dtype=torch.bool)
        for scores, share in ((cosine, self.cos_share), (sine, self.sin_share)):
            counts = [round(share * budget(self.keep_ratio, count)) for _, count in windows]
            picks |= ranks(scores, windows) < _per_token(counts, windows, scores.device)
        return picks

    def _best(self, rank: Tensor, ivc: Tensor) -> Tensor:
        """(size,) the overview's foreground: what its own budget holds besides its IVC tokens."""
        places = torch.arange(len(rank), device=rank.device)
        order = torch.empty_like(rank).scatter_(0, rank, places)  # best first
        free = ~ivc[order]
        room = budget(self.keep_ratio, len(rank)) - ivc.sum()
        return torch.empty_like(ivc).scatter_(0, order, free & (free.cumsum(0) <= room))


def _per_token(
    counts: list[int], windows: Sequence[tuple[int, int]], device: torch.device
) -> Tensor | int:
    """Each window's count at all of its tokens; a number if there is but one window."""
    if len(windows) == 1:
        return counts[0]
    sizes = torch.tensor([size for _, size in windows])
    return to_device(torch.tensor(counts).repeat_interleave(sizes), device)
