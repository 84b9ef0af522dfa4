"""VidCom2: give distinct frames of a video more tokens, and keep the distinct tokens of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ivcp.core.frames import frame_states
from ivcp.core.pruner import TowerPruner
from ivcp.core.selection import Selection, ranks, top
from ivcp.core.view import Signal, View

WIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Variances of the Gaussians that are summed to a similarity, as in the release."""
TEMPERATURE = 0.01
"""Of the softmax over frames, as in the release."""


@dataclass(frozen=True, kw_only=True)
class VidCom2(TowerPruner):
    """Keep the tokens least like the mean of their frame and the mean of the video.

    Similarity is measured on the half of the channels that vary least over the video. A frame that
    is less like the rest of the video gets more of the budget. Each frame keeps its tokens of the
    lowest similarity to both means. An image is a single frame.

    Paper: VidCom2 (arXiv 2505.14454); release for LLaVA-OneVision, LLaVA-Video and Qwen2-VL and
    later, at 0.25 and 0.15.
    Differs from the reference: exactly the budget is kept, as in vLLM's version: what the rounding
    of the frames' budgets leaves goes to the dropped tokens of the lowest similarity, and what they
    exceed it by is taken from the kept ones of the highest; a budget of fewer tokens than there are
    frames leaves frames empty (vLLM: at least one token each); the release does not prune images.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1] (release: 0.25).
        renumber: New positions of kept tokens, as in `Renumbering` (release: false).
        exact: Whether exactly the budget is kept; without it, frames keep their own budgets, for
            whose sum the host waits (release: no, in vLLM yes).
    """

    exact: bool = True

    whole_images: ClassVar[bool] = True
    needs: ClassVar[frozenset[Signal]] = frozenset({"hidden"})

    def tower_layers(self) -> tuple[int, ...]:
        return ()

    def fills_ratio(self) -> bool:
        return self.exact

    def select(self, view: View, stage: int) -> Selection:
        target, count = self.target(view), view.image.length
        if target >= count:
            return Selection(torch.arange(count, device=view.index.device))
        to_video, to_frame = similarities(frame_states(view))  # (F, N)
        frames, size = to_video.shape
        budgets = frame_budgets(to_video, self.keep_ratio)  # (F,)
        similarity = (to_video + to_frame).flatten()  # (V,)
        rank = ranks(-similarity, view.image.frames).view(frames, size)
        in_budget = (rank < budgets[:, None]).flatten()
        if not self.exact:
            return Selection(in_budget.nonzero()[:, 0])
        # tokens in their frame's budget come first, and the least similar ones of both kinds
        rank = ranks(-similarity, [(0, count)]) + count * ~in_budget
        return Selection(top(-rank, target).sort().values)


def similarities(states: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity of each token to the mean of the video, and to the mean of its frame.

    Args:
        states: (F, N, C) float32 states of each frame.

    Returns:
        Two tensors (F, N).
    """
    variance = states.flatten(0, 1).var(0, correction=0)
    steady = top(-variance, max(1, states.shape[-1] // 2)).sort().values
    states = normalize(states[..., steady], dim=-1)
    means = states.mean((0, 1), keepdim=True), states.mean(1, keepdim=True)
    distances = [(states - mean).square().sum(-1) for mean in means]
    to_video, to_frame = (
        sum(((-distance / (2 * width)).exp() for width in WIDTHS), torch.zeros_like(distance))
        for distance in distances
    )
    return to_video, to_frame


def frame_budgets(to_video: Tensor, keep_ratio: float) -> Tensor:
    """(F,) tokens of each frame: the more, the less its (F, N) tokens are like the video's mean."""
    distinct = (-to_video.mean(1) / TEMPERATURE).softmax(0)
    scale = (keep_ratio * (1 + distinct - distinct.mean())).clamp(max=1)
    return (scale * to_video.shape[1]).round().clamp(min=1)
