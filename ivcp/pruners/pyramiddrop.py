"""PyramidDrop: at several layers, keep what the last prompt token is about to attend to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ivcp.core.depths import scaled_layers
from ivcp.core.errors import UserError
from ivcp.core.pruner import StagedPruner
from ivcp.core.selection import Selection, top
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class PyramidDrop(StagedPruner):
    """Drop more visual tokens at each of a few layers, as images become redundant with depth.

    Before each stage's layer, tokens are ranked by the attention that the last prompt token is
    going to pay them in that layer. Only this row is computed, with the layer's own weights.

    Paper: PyramidDrop (arXiv 2410.17247); release: layers 8, 16 and 24 of 32, half at each.
    Differs from the reference: tokens keep their original positions (`renumber` gives the release's
    gapless numbering); grouped keys and batches work; numbers of tokens are rounded (`ratios`
    truncates them, as the release does).

    Attributes:
        keep_ratio: Fraction of visual tokens after the last stage, in (0, 1]; stages shrink
            geometrically to it (release: 0.125).
        layers: Decoder layers before which to prune, ascending, 0 .. L-1; "auto" takes 8, 16 and
            24 of 32, and the same fractions of other depths.
        prune_earlier_kv: Whether to prune the caches of earlier layers, too (release: no).
        renumber: New positions of kept tokens, as in `Renumbering` (release: true).
        ratios: Fraction of the image's tokens to keep at each stage, in (0, 1], instead of
            `keep_ratio`; numbers of tokens are truncated.
    """

    ratios: tuple[float, ...] | None = None

    needs: ClassVar[frozenset[Signal]] = frozenset({"attention"})
    signals_from: ClassVar[Literal["previous", "next"]] = "next"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ratios is None:
            return
        falling = sorted(self.ratios, reverse=True) == list(self.ratios)
        if not falling or not all(0 < ratio <= 1 for ratio in self.ratios):
            raise UserError(f"ratios must lie in (0, 1] and not rise; got {list(self.ratios)}.")
        self.check_length("ratios", self.ratios)

    def auto_layers(self, layers: int) -> tuple[int, ...]:
        return scaled_layers((8, 16, 24), 32, layers)

    def fills_ratio(self) -> bool:
        return self.ratios is None

    def plan(self, tokens: int) -> tuple[int, ...]:
        if self.ratios is None:
            return super().plan(tokens)
        return tuple(max(1, int(tokens * ratio)) for ratio in self.ratios)

    def select(self, view: View, stage: int) -> Selection:
        count = self.stage_target(view, stage)
        return Selection(top(view.last_attention(), count).sort().values)
