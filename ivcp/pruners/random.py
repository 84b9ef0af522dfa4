"""Control: keep visual tokens at random."""

from __future__ import annotations

from dataclasses import dataclass

from ivcp.core.pruner import LayerPruner
from ivcp.core.selection import Selection, random_order
from ivcp.core.transfer import to_device
from ivcp.core.view import View


@dataclass(frozen=True, kw_only=True)
class RandomPruning(LayerPruner):
    """Keep a uniformly random subset of each image's tokens.

    The seed contains the sample's id and the image's position in the prompt, so the subset depends
    on neither batch nor process. A method is worth what it gains over this control at its layer.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1].
        seed: Seed of the subsets.
    """

    seed: int = 0

    def reads_start(self) -> bool:
        return True

    def select(self, view: View, stage: int) -> Selection:
        order = random_order(f"{self.seed}/{view.sample_id}/{view.image.start}", len(view.index))
        return Selection(to_device(order[: self.target(view)].sort().values, view.index.device))
