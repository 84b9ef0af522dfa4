"""EVS: keep what changes from one frame of a video to the next."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch.nn.functional import cosine_similarity

from ivcp.core.frames import frame_states
from ivcp.core.pruner import TowerPruner
from ivcp.core.selection import Selection, top
from ivcp.core.view import Signal, View

FIRST = 255.0
"""Dissimilarity of the first frame, above that of all others (2 at most), as in vLLM."""


@dataclass(frozen=True, kw_only=True)
class EVS(TowerPruner):
    """Keep the first frame, and the tokens least like those at their place in the frame before.

    Likeness is the cosine of the embeddings that enter the language model. The budget holds for the
    video: a frame in which nothing moves may lose all of its tokens.

    Paper: Efficient Video Sampling (arXiv 2510.14624); reference: vLLM.
    Differs from the reference: exactly the budget is kept; where it is smaller than the first
    frame, evenly spaced tokens of that frame remain (`whole_first_frame` gives the reference's
    number); so it is with images, which are a single frame; text behind the video keeps its
    positions, where vLLM numbers it on from the width of a frame.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        renumber: New positions of kept tokens, as in `Renumbering` (reference: false).
        whole_first_frame: Whether the first frame is kept complete even where that exceeds the
            budget, and so are images (reference: yes).
    """

    whole_first_frame: bool = False

    whole_images: ClassVar[bool] = True
    needs: ClassVar[frozenset[Signal]] = frozenset({"hidden"})

    def tower_layers(self) -> tuple[int, ...]:
        return ()

    def fills_ratio(self) -> bool:
        return not self.whole_first_frame

    def select(self, view: View, stage: int) -> Selection:
        target, states = self.target(view), frame_states(view)  # (F, N, C)
        first = states.shape[1]
        if self.whole_first_frame:
            target = max(target, first)
        if target <= first:
            keep = (2 * torch.arange(target, device=states.device) + 1) * first // (2 * target)
        else:
            change = [states.new_full((first,), FIRST)]
            for earlier, later in pairwise(states):  # one pair at a time needs little memory
                change.append(1 - cosine_similarity(later, earlier, dim=-1))
            keep = top(torch.cat(change), target).sort().values
        return Selection(keep, {"first_frame": keep < first})
