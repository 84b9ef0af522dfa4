"""IVC-Prune: implicit visual coordinates and prompt-aware foreground tokens, selected once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.parts import ImageParts, parts_of
from ivcp.core.pruner import LayerPruner, Stage
from ivcp.core.rope import rotation_scores
from ivcp.core.selection import Selection, budget, ranks, top
from ivcp.core.similarity import (
    seed_augmented_similarity,
    seed_count,
    semantic_seeds,
    summed_similarity,
)
from ivcp.core.transfer import to_device
from ivcp.core.view import Signal, View

TWO_PASS_LAYERS = 2
"""Layers of a first pass: the smallest published layer of IVC-Prune, that of Qwen2-VL-7B."""


@dataclass(frozen=True, kw_only=True)
class IVCPrune(LayerPruner):
    """Keep the tokens that anchor coordinates and the tokens that the prompt is about.

    Rotary positions whose rotation is near the identity or near 90 degrees serve the model as
    reference points for locating objects. These IVC tokens are kept whatever they show. Semantic
    seeds, whose value states are most similar to the text's, join them, and the best foreground
    tokens fill the budget. One selection at a middle layer prunes the cache of all layers; tokens
    keep their original positions.

    Each tile, thumbnail and frame of an image has its own IVC tokens. Of an image with a thumbnail,
    only the thumbnail is scored by values. Its foreground, and the tile tokens that show the same
    areas, come before the rest of the thumbnail, and that before the rest of the tiles. Padding is
    neither seed nor foreground; IVC tokens may lie on it.

    With `two_pass`, which is a method of its own, the same selection is made before layer 0: the
    first `layer` layers run once on all tokens, and then all layers on the kept ones alone. So it
    can be served where tokens cannot leave between layers. The first pass costs operations: of
    Qwen2.5-VL-7B's prefill at a keep ratio of 0.5, 61 % remain with 2 layers, and 111 % with 16.

    Paper: IVC-Prune (arXiv 2602.03060), Algorithm 1.
    Differs from the reference: scores are float32 and ties go to the lower index (the release ranks
    in bfloat16, where most scores tie); every image of a prompt has its own budget and its own text
    queries; batches work; where the budget is too small for all, IVC tokens come before seeds and
    seeds before foreground, so that the budget always holds (the release's InternVL code drops the
    last IVC tokens of the thumbnail, and misses the budget where the thumbnail runs out).

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1] (paper: 0.5).
        cos_share: Part of the budget for the largest mean cosines, in [0, 1] (release: a fifth).
        sin_share: Part of the budget for the largest mean sines, in [0, 1] (release: a fifth).
        seed_ratio: Seeds as a fraction of the visual tokens, in [0, 1]; 0 uses no seeds (release:
            0.01, at least one seed).
        softmax: The tokens over which value similarities are normalised: those of the "image", or
            of the "prompt" (release for LLaVA and InternVL).
        foreground_share: None fills the budget with foreground. A number in [0, 1] is the part of
            the budget for foreground tokens, which may be IVC tokens as well; fewer tokens than the
            budget are kept then (release for LLaVA: two fifths).
        two_pass: Whether to choose in a first pass through `layer` layers and to prune before layer
            0; "auto" is then 2, as for most models the published layer costs more than it saves.
    """

    cos_share: float = 0.2
    sin_share: float = 0.2
    seed_ratio: float = 0.01
    softmax: Literal["image", "prompt"] = "image"
    foreground_share: float | None = None
    two_pass: bool = False

    needs: ClassVar[frozenset[Signal]] = frozenset({"positions", "values"})
    vectorized: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cos_share", "sin_share", "seed_ratio", "foreground_share"):
            value = getattr(self, name)
            if not (value is None and name == "foreground_share") and not 0 <= value <= 1:
                raise UserError(f"{name} must lie in [0, 1]; got {value!r}.")

    def stages(self) -> tuple[Stage, ...]:
        stages = super().stages()
        if not self.two_pass:
            return stages
        return tuple(replace(stage, layer=0, first_pass=stage.layer) for stage in stages)

    def auto_layer(self, model_type: str, layers: int) -> int:
        if self.two_pass:
            return min(TWO_PASS_LAYERS, layers)
        return super().auto_layer(model_type, layers)

    def fills_ratio(self) -> bool:
        return self.foreground_share is None

    def runs_vectorized(self) -> bool:
        # with a share, the number of kept tokens depends on the image
        return super().runs_vectorized() and self.foreground_share is None

    def select(self, view: View, stage: int) -> Selection:
        parts = parts_of(view)
        start, size = parts.whole  # only these tokens are scored by values

        # IVC tokens: the k_c largest V(m) and the k_c largest U(m), united
        ivc = self._ivc_tokens(view, parts)  # (V,)

        # semantic seeds: the visual tokens whose values are most similar to the text's
        text, visual, others = self._values(view, parts)
        blank = None if parts.padding is None else parts.padding[start : start + size]
        text_similarity = summed_similarity(text, visual, others)  # (size,)
        seeds = semantic_seeds(text_similarity, seed_count(self.seed_ratio, size), blank)
        is_seed = torch.zeros_like(ivc).index_fill(0, start + seeds, True)

        # foreground tokens: similarity again, with the seeds as additional queries
        similarity = seed_augmented_similarity(
            text_similarity, text.shape[1], visual, seeds, others, blank
        )
        foreground = ranks(similarity, [(0, size)])  # (size,), the best has rank 0

        # fill up to the budget: IVC tokens and seeds, then the best of the foreground
        keep = self._fill(parts, self.target(view), ivc, is_seed, foreground)
        reasons = {"foreground": torch.ones_like(ivc), "seed": is_seed, "ivc": ivc}
        return Selection(keep, {name: mask[keep] for name, mask in reasons.items()})

    def _ivc_tokens(self, view: View, parts: ImageParts) -> Tensor:
        """(V,) True at the largest V(m) and at the largest U(m) of each reference group."""
        cosine, sine = rotation_scores(view.positions(), view.inverse_frequencies())
        real_axis = self._largest(cosine, self.cos_share, parts)
        imaginary_axis = self._largest(sine, self.sin_share, parts)
        return real_axis | imaginary_axis

    def _largest(self, scores: Tensor, fraction: float, parts: ImageParts) -> Tensor:
        """(V,) True at the k_c largest scores of each group; k_c is a fraction of its budget."""
        counts = [round(fraction * budget(self.keep_ratio, size)) for size in parts.sizes]
        limit: Tensor | int = counts[0]
        if len(counts) > 1:  # each token is compared with the count of its own group
            sizes = torch.tensor(parts.sizes)
            limit = to_device(torch.tensor(counts).repeat_interleave(sizes), scores.device)
        return ranks(scores, parts.groups) < limit

    def _values(self, view: View, parts: ImageParts) -> tuple[Tensor, Tensor, Tensor | None]:
        """Value states of the text, the global view, and what else the softmax runs over."""
        start, size = parts.whole
        text, visual = view.values()
        if self.softmax == "image":
            return text, visual[:, start : start + size], None
        others = [view.other_values(), visual[:, :start], visual[:, start + size :]]
        return text, visual[:, start : start + size], torch.cat(others, 1)

    def _fill(
        self, parts: ImageParts, target: int, ivc: Tensor, seed: Tensor, foreground: Tensor
    ) -> Tensor:
        """(K,) ascending indices of the tokens to keep."""
        start, size = parts.whole
        rank, padding = foreground[parts.cell], parts.padding
        scored = target if size == len(ivc) else budget(self.keep_ratio, size)  # of the budget
        if self.foreground_share is None:
            best = self._best_foreground(ivc[start : start + size], foreground, scored)[parts.cell]
            # 4: IVC tokens, 3: seeds, 2: foreground and what shows the same, 1: global view's rest
            level = best * 2
            level[start : start + size].clamp_min_(1)
            level = level.masked_fill(seed, 3)
            if padding is not None:
                level = level.masked_fill(padding, -1)
        else:
            best = rank < round(self.foreground_share * scored)
            level = best * 2
            target = min(target, int((ivc | best).sum()))
        level = level.masked_fill(ivc, 4)
        # a level outweighs every rank, so ranks decide within a level only
        return top(level * size - rank, target).sort().values

    def _best_foreground(self, ivc: Tensor, rank: Tensor, target: int) -> Tensor:
        """(size,) True at the best foreground that the global view's budget holds beside `ivc`."""
        number = torch.arange(len(rank), device=rank.device)
        order = rank.scatter(0, rank, number)  # all are overwritten
        free = ~ivc[order]
        count = target - ivc.sum()
        return ivc.scatter(0, order, free & (free.cumsum(0) <= count))
