"""No pruning: the baseline of every comparison."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ivcp.core.pruner import Pruner, Stage
from ivcp.core.selection import Selection
from ivcp.core.view import View


@dataclass(frozen=True, kw_only=True)
class NoPruning(Pruner):
    """Keep every visual token; the session still counts tokens and cache.

    Attributes:
        keep_ratio: Always 1.
    """

    keep_ratio: float = 1.0

    def stages(self) -> tuple[Stage, ...]:
        return ()

    def fills_ratio(self) -> bool:
        return False

    def select(self, view: View, stage: int) -> Selection:
        return Selection(torch.arange(len(view.index), device=view.index.device))
