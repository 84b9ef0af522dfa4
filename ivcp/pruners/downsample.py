"""Control: a smaller image, instead of fewer tokens of the whole image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner, Size, Stage, TokenCount
from ivcp.core.selection import Selection, budget
from ivcp.core.view import View

LEAST_SIDE = 8  # pixels; of a smaller side, rounding to whole pixels would change the aspect ratio


@dataclass(frozen=True, kw_only=True)
class Downsample(Pruner):
    """Shrink each image before it is processed, so that it gives as many tokens as are kept.

    The vision tower and all decoder layers process fewer tokens, and no method chooses among them:
    what a pruning method must beat to be worth its cost. The size is the largest one of the image's
    aspect ratio that gives at most `keep_ratio` of its tokens, or the fewest that it can give. A
    processor that cuts tiles reaches few numbers; what came out is recorded as the keep ratio.

    Attributes:
        keep_ratio: Fraction of visual tokens that the smaller image may give, in (0, 1].
    """

    before_processor: ClassVar[bool] = True

    def stages(self) -> tuple[Stage, ...]:
        return ()

    def fills_ratio(self) -> bool:
        return False

    def select(self, view: View, stage: int) -> Selection:
        return Selection(torch.arange(len(view.index), device=view.index.device))

    def image_sizes(self, sizes: Sequence[Size], count: TokenCount) -> list[Size]:
        images = len(sizes)  # some processors cut fewer tiles where a prompt has several images

        def tokens(size: Size) -> float:
            return count([size] * images) / images

        return [self._smaller(size, tokens) for size in sizes]

    def _smaller(self, size: Size, tokens: Callable[[Size], float]) -> Size:
        """The size of an image that gives the budget.

        Raises:
            UserError: No smaller size gives fewer tokens.
        """
        total = tokens(size)
        goal: float = budget(self.keep_ratio, round(total))
        if goal >= total:
            return size
        longer, shorter = max(size), min(size)
        low, high = -(-longer * min(LEAST_SIDE, shorter) // shorter), longer
        if not 0 < (fewest := tokens(_scaled(size, low))) < total:
            raise UserError(
                f"Downsample cannot reduce the {total:g} visual tokens of an image of {size[0]} x "
                f"{size[1]} pixels: the model's processor makes as many of smaller images of this "
                "shape; use another pruner, or another model, or a smaller model.min_pixels."
            )
        goal = max(goal, fewest)
        while high - low > 1:  # at `low` the goal is met, at `high` it is not
            middle = (low + high) // 2
            if 0 < tokens(_scaled(size, middle)) <= goal:  # 0 of an image too thin to be processed
                low = middle
            else:
                high = middle
        return _scaled(size, low)


def _scaled(size: Size, longer: int) -> Size:
    """A size with the longer side of `longer` pixels."""
    width, height = (max(1, round(side * longer / max(size))) for side in size)
    return width, height
