"""Another method that spends a part of its budget on IVC tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.layer_kinds import Kinds
from ivcp.core.pruner import Pruner, Renumbering, Stage
from ivcp.core.rope import check_rope_base, ivc_rank
from ivcp.core.selection import Selection, random_order, top
from ivcp.core.spread import spread_rank
from ivcp.core.transfer import to_device
from ivcp.core.view import Signal, View


@dataclass(frozen=True, kw_only=True)
class PlusIVC(Pruner):
    """Replace a share of another method's budget by IVC tokens.

    The base method selects as with `1 - share` of the budget. The rest goes to the tokens whose
    rotary rotation is nearest the identity or nearest 90 degrees, in turn, among those that the
    base did not select. So as many tokens are kept as by the base alone, at each of its stages.
    Where the base merges dropped tokens, a kept IVC token may also be part of a merged token.

    Controls show how much of the effect comes from any tokens spread over the image: with
    `added="random"` or "farthest", random tokens or those of farthest-point sampling replace the
    IVC tokens; with another `rope_base` or an `offset`, the same rule chooses other places.

    Paper: IVC-Prune (arXiv 2602.03060), IVC tokens added to other methods.
    Differs from the reference: nothing known.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1]; replaces the base's.
        base: The method; it must prune to a ratio.
        share: Part of the budget for IVC tokens, in [0, 1); 0 is the base alone (0.4: both lists of
            IVC-Prune's release).
        added: Which tokens are added to the base's selection, "ivc", "random" or "farthest".
        seed: Seed of the random tokens.
        rope_base: Base of the rotary frequencies for IVC tokens, as in `IVCOnly`.
        offset: Places by which positions are shifted for IVC tokens, as in `IVCOnly`.
    """

    whole_images: ClassVar[bool] = True

    base: Pruner
    share: float = 0.4
    added: Literal["ivc", "random", "farthest"] = "ivc"
    seed: int = 0
    rope_base: float | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.base, Pruner) or not self.base.fills_ratio():
            raise UserError(
                "base must be a method that prunes to a ratio, such as FastV, so that IVC tokens "
                f"can take a share of it; got {self.base!r}: choose one with "
                "pruner@pruner.base=fastv."
            )
        if not self.base.decides_by_image():
            raise UserError(
                f"base must decide for each image alone; {type(self.base).__name__} decides for "
                "all images of a sample together."
            )
        super().__post_init__()
        if not 0 <= self.share < 1:
            raise UserError(f"share must lie in [0, 1); got {self.share!r}.")
        check_rope_base(self.rope_base)
        if self.added != "ivc" and (self.rope_base is not None or self.offset):
            raise UserError(
                f"rope_base and offset are about IVC tokens; added={self.added} adds others: leave "
                "them out."
            )

    def stages(self) -> tuple[Stage, ...]:
        return tuple(
            replace(stage, needs=stage.needs | {"positions", "hidden"})
            for stage in self.base.stages()
        )

    def renumbers(self) -> Renumbering:
        return self.base.renumbers()

    def fitted(
        self,
        model_type: str,
        layers: int,
        provides: frozenset[Signal] = frozenset(),
        kinds: Kinds = (),
    ) -> PlusIVC:
        return replace(self, base=self.base.fitted(model_type, layers, provides, kinds))

    def plan(self, tokens: int) -> tuple[int, ...]:
        return replace(self.base, keep_ratio=self.keep_ratio).plan(tokens)

    def select(self, view: View, stage: int) -> Selection:
        count, target = len(view.index), self.target(view)
        rank = self._rank(view)  # (V,)
        if stage + 1 < len(self.base.stages()):
            target = len(replace(self.base, keep_ratio=self.keep_ratio).select(view, stage))
        if target >= count:
            return Selection(torch.arange(count, device=rank.device))
        base_ratio = self.keep_ratio * (1 - self.share)
        base = replace(self.base, keep_ratio=base_ratio).select(view, stage)
        taken = base.keep if base.merged_at is None else torch.cat([base.keep, base.merged_at])
        rank = rank.index_fill(0, taken, torch.inf)
        added = top(-rank, target - len(base))
        keep, order = torch.cat([base.keep, added]).sort()
        is_added = torch.ones_like(added, dtype=torch.bool)
        is_base = torch.ones_like(base.keep, dtype=torch.bool)
        reasons = {
            name: torch.cat([mask, ~is_added])[order] for name, mask in (base.reasons or {}).items()
        }
        reasons["ivc" if self.added == "ivc" else "kept"] = torch.cat([~is_base, is_added])[order]
        states = base.states
        if states is not None:
            states = torch.cat([states, view.hidden()[added]])[order]
        return replace(base, keep=keep, reasons=reasons, states=states)

    def _rank(self, view: View) -> Tensor:
        """(V,) rank of each current token among those to be added, best lowest."""
        name = f"rank/{self.added}/{self.seed}/{self.rope_base}/{self.offset}"
        if name not in view.notes:  # the first stage, where the image is complete
            view.notes[name] = self._rank_of_all(view)
        return view.notes[name][view.index]

    def _rank_of_all(self, view: View) -> Tensor:
        if self.added == "ivc":
            return ivc_rank(view, self.rope_base, self.offset)
        if self.added == "farthest":
            rank = spread_rank(tuple(replace(grid, start=0) for grid in view.image.grids))
        else:
            name = f"added/{self.seed}/{view.sample_id}/{view.image.start}"
            rank = random_order(name, view.image.length).float()
        return to_device(rank, view.index.device)
