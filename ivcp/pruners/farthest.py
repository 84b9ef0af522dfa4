"""Control: farthest-point sampling of token positions, coverage without content."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ivcp.core.pruner import LayerPruner
from ivcp.core.selection import Selection
from ivcp.core.spread import spread_tokens
from ivcp.core.transfer import to_device
from ivcp.core.view import View


@dataclass(frozen=True, kw_only=True)
class FarthestPoint(LayerPruner):
    """Keep the token in the middle, then always the one farthest from all that are kept.

    Distances are those of the tokens' centres in the image, in tokens. The tiles of an image show
    it together and are sampled together; a thumbnail and each frame of a video are sampled alone.
    Each of these parts gets a share of the budget in proportion to its size. Unlike a regular grid,
    the kept tokens reach the edges of the image, and their number may be any.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
    """

    whole_images: ClassVar[bool] = True

    def select(self, view: View, stage: int) -> Selection:
        # images of the same layout share the work, wherever they stand in their prompts
        grids = tuple(replace(grid, start=0) for grid in view.image.grids)
        return Selection(to_device(spread_tokens(grids, self.target(view)), view.index.device))
