"""IVC-Prune: implicit visual coordinates and prompt-aware foreground tokens, selected once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ivcp.core.devices import to_device
from ivcp.core.errors import UserError
from ivcp.core.pruner import LayerPruner
from ivcp.core.rope import rotation_scores
from ivcp.core.selection import Selection, budget, ranks, top
from ivcp.core.similarity import foreground_scores, padding
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class IVCPrune(LayerPruner):
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

    cos_share: float = 0.2
    sin_share: float = 0.2
    seed_ratio: float = 0.01
    softmax: Literal["image", "prompt"] = "image"
    foreground_share: float | None = None

    needs: ClassVar[frozenset[Signal]] = frozenset({"positions", "values"})
    whole_images: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cos_share", "sin_share", "seed_ratio", "foreground_share"):
            value = getattr(self, name)
            if not (value is None and name == "foreground_share") and not 0 <= value <= 1:
                raise UserError(f"{name} must lie in [0, 1]; got {value!r}.")

    def fills_ratio(self) -> bool:
        return self.foreground_share is None

    def select(self, view: View, stage: int) -> Selection:
        image, target = view.image, self.target(view)
        first, size = image.global_view
        scored = slice(first, first + size)
        ivc = self._ivc_tokens(view)  # (V,)
        foreground, seeds = self._foreground(view)  # (size,) rank of each, indices of the best
        shown_at = to_device(image.thumbnail_index, ivc.device)  # (V,)
        rank = foreground[shown_at]
        seed = torch.zeros_like(ivc).index_fill(0, first + seeds, True)
        if self.foreground_share is None:
            chosen = self._room_beside(ivc[scored], foreground)[shown_at]
            # 4: IVC tokens, 3: seeds, 2: foreground and what shows the same, 1: global view's rest
            level = chosen * 2
            level[scored].clamp_min_(1)
            level = level.masked_fill(seed, 3)
            if (blank := padding(image, ivc.device)) is not None:
                level = level.masked_fill(blank, -1)
        else:
            chosen = rank < round(self.foreground_share * budget(self.keep_ratio, size))
            level = chosen * 2
            target = min(target, int((ivc | chosen).sum()))
        level = level.masked_fill(ivc, 4)
        keep = top(level * size - rank, target).sort().values
        reasons = {"foreground": torch.ones_like(ivc), "seed": seed, "ivc": ivc}
        return Selection(keep, {name: mask[keep] for name, mask in reasons.items()})

    def _ivc_tokens(self, view: View) -> Tensor:
        """(V,) which tokens have the largest mean cosines or sines among their group."""
        cosine, sine = rotation_scores(view.positions(), view.inverse_frequencies())
        groups = view.image.reference_groups
        ivc = torch.zeros_like(cosine, dtype=torch.bool)
        for scores, share in ((cosine, self.cos_share), (sine, self.sin_share)):
            counts = [round(share * budget(self.keep_ratio, count)) for _, count in groups]
            ivc |= ranks(scores, groups) < _per_token(counts, groups, scores.device)
        return ivc

    def _foreground(self, view: View) -> tuple[Tensor, Tensor]:
        """(size,) foreground rank of each token of the global view, and the seeds among them."""
        first, size = view.image.global_view
        text, visual = view.values()
        scored, others = visual[:, first : first + size], None
        if self.softmax == "prompt":
            beside = [view.other_values(), visual[:, :first], visual[:, first + size :]]
            others = torch.cat(beside, 1)
        seeds = max(1, round(self.seed_ratio * size)) if self.seed_ratio else 0
        blank = padding(view.image, visual.device)
        if blank is not None:
            blank = blank[first : first + size]
        scores, picked = foreground_scores(text, scored, seeds, others, blank)
        return ranks(scores, [(0, size)]), picked

    def _room_beside(self, ivc: Tensor, rank: Tensor) -> Tensor:
        """(size,) the global view's best foreground, as many as its budget holds beside `ivc`."""
        order = torch.empty_like(rank).scatter_(
            0, rank, torch.arange(len(rank), device=rank.device)
        )
        free = ~ivc[order]
        room = budget(self.keep_ratio, len(rank)) - ivc.sum()
        return torch.empty_like(ivc).scatter_(0, order, free & (free.cumsum(0) <= room))


def _per_token(
    counts: list[int], groups: Sequence[tuple[int, int]], device: torch.device
) -> Tensor | int:
    """Each group's count at all of its tokens; a number if there is but one group."""
    if len(groups) == 1:
        return counts[0]
    sizes = torch.tensor([size for _, size in groups])
    return to_device(torch.tensor(counts).repeat_interleave(sizes), device)
