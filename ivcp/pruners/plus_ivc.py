"""Another method with IVC tokens in a part of its budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ivcp.core.devices import to_device
from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner, Stage
from ivcp.core.rope import ivc_rank
from ivcp.core.selection import Selection, random_order, top
from ivcp.core.view import View


@dataclass(frozen=True, kw_only=True)
class PlusIVC(Pruner):
    """Let another method spend its budget, but for a share that goes to IVC tokens.

    The base method chooses as it would with `1 - share` of the budget. The rest goes to the tokens
    whose rotary rotation is nearest the identity or nearest 90 degrees, in turn, among those that
    the base did not choose. So the total is the base's own, whatever both would choose. Where the
    base acts at several layers, this holds at each of them; where it merges dropped tokens, an IVC
    token that stays may also be part of a merged one.

    With `added="random"` random tokens take the place of IVC tokens: what IVC tokens give beyond
    this control is theirs, and not that of any tokens spread over the image.

    Paper: IVC-Prune (arXiv 2602.03060), IVC tokens added to other methods.
    Differs from the reference: nothing known.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1]; takes the place of the base's.
        base: The method; it must prune, and to a ratio.
        share: Part of the budget for IVC tokens, in [0, 1); 0 is the base alone (0.4: both lists of
            IVC-Prune's release).
        added: What is added to the base's choice, "ivc" or "random".
        seed: Another seed adds other random tokens.
    """

    whole_images: ClassVar[bool] = True

    base: Pruner
    share: float = 0.4
    added: Literal["ivc", "random"] = "ivc"
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.base, Pruner) or not self.base.fills_ratio():
            raise UserError(
                "base must be a method that prunes to a ratio, such as FastV, so that IVC tokens "
                f"can take a share of it; got {self.base!r}: choose one with "
                "pruner@pruner.base=fastv."
            )
        if not self.base.decides_by_image():
            raise UserError("base must decide for each image alone; this one sees all together.")
        super().__post_init__()
        if not 0 <= self.share < 1:
            raise UserError(f"share must lie in [0, 1); got {self.share!r}.")

    def stages(self) -> tuple[Stage, ...]:
        return tuple(
            replace(stage, needs=stage.needs | {"positions", "hidden"})
            for stage in self.base.stages()
        )

    def renumbers(self) -> bool:
        return self.base.renumbers()

    def fitted(self, model_type: str, layers: int) -> PlusIVC:
        return replace(self, base=self.base.fitted(model_type, layers))

    def select(self, view: View, stage: int) -> Selection:
        count, room = len(view.index), self.target(view)
        rank = (self._ivc if self.added == "ivc" else self._random)(view)  # (V,)
        if stage + 1 < len(self.base.stages()):
            room = len(replace(self.base, keep_ratio=self.keep_ratio).select(view, stage))
        if room >= count:
            return Selection(torch.arange(count, device=rank.device))
        less = self.keep_ratio * (1 - self.share)
        found = replace(self.base, keep_ratio=less).select(view, stage)
        taken = found.keep if found.merged_at is None else torch.cat([found.keep, found.merged_at])
        rank = rank.index_fill(0, taken, torch.inf)
        added = top(-rank, room - len(found))
        keep, order = torch.cat([found.keep, added]).sort()
        new = torch.ones_like(added, dtype=torch.bool)
        old = torch.zeros_like(found.keep, dtype=torch.bool)
        reasons = {
            name: torch.cat([mask, ~new])[order] for name, mask in (found.reasons or {}).items()
        }
        reasons["ivc" if self.added == "ivc" else "kept"] = torch.cat([old, new])[order]
        states = found.states
        if states is not None:
            states = torch.cat([states, view.hidden()[added]])[order]
        return replace(found, keep=keep, reasons=reasons, states=states)

    def _ivc(self, view: View) -> Tensor:
        """(V,) rank of each current token among the image's IVC tokens, best lowest.

        Before the first stage all tokens are there.
        """
        if "ivc_rank" not in view.notes:
            view.notes["ivc_rank"] = ivc_rank(view)
        return view.notes["ivc_rank"][view.index]

    def _random(self, view: View) -> Tensor:
        """(V,) rank of each current token in a random order of the image's."""
        if "random_rank" not in view.notes:
            name = f"added/{self.seed}/{view.sample_id}/{view.image.start}"
            order = random_order(name, view.image.length)
            view.notes["random_rank"] = to_device(order.float(), view.index.device)
        return view.notes["random_rank"][view.index]
