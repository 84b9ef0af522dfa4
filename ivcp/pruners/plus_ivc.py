"""Another method with IVC tokens in a part of its budget."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ivcp.core.devices import to_device
from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner, Stage, View
from ivcp.core.rope import rotation_scores
from ivcp.core.selection import ROLES, Selection, random_order, ranks, top


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

    base: Pruner
    share: float = 0.4
    added: str = "ivc"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.base, Pruner) or not self.base.stages():
            raise UserError(
                f"base must be a method that prunes, such as FastV; got {self.base!r}: choose one "
                "with pruner@pruner.base=fastv."
            )
        if (rule := getattr(self.base, "budget", "ratio")) != "ratio":
            raise UserError(
                f"base must prune to a ratio, of which IVC tokens take a share; got {rule!r}: set "
                "pruner.base.budget=ratio."
            )
        if not 0 <= self.share < 1:
            raise UserError(f"share must lie in [0, 1); got {self.share!r}.")
        if self.added not in ("ivc", "random"):
            raise UserError(f"added must be ivc or random; got {self.added!r}.")
        # an attribute of the class in other methods; here it follows the base
        object.__setattr__(self, "needs", self.base.needs | {"positions"})

    def stages(self) -> tuple[Stage, ...]:
        return self.base.stages()

    def renumbers(self) -> bool:
        return self.base.renumbers()

    def select(self, view: View, stage: int) -> Selection:
        count, room = len(view.index), self.target(view)
        if stage + 1 < len(self.stages()):
            room = _size(replace(self.base, keep_ratio=self.keep_ratio).select(view, stage))
        if room >= count:
            return Selection(torch.arange(count, device=view.index.device))
        less = self.keep_ratio * (1 - self.share)
        found = replace(self.base, keep_ratio=less).select(view, stage)
        taken = found.keep if found.merged_at is None else torch.cat([found.keep, found.merged_at])
        rank = _reference_rank(view) if self.added == "ivc" else _random_rank(view, self.seed)
        rank = rank.index_fill(0, taken, torch.inf)
        added = top(-rank, room - _size(found))
        roles = found.roles
        if roles is None:
            roles = torch.full_like(found.keep, ROLES.index("kept"))
        role = "ivc" if self.added == "ivc" else "kept"
        roles = torch.cat([roles, torch.full_like(added, ROLES.index(role))])
        keep, order = torch.cat([found.keep, added]).sort()
        return replace(found, keep=keep, roles=roles[order])


def _size(found: Selection) -> int:
    """Tokens that a selection leaves, merged ones included."""
    return len(found.keep) + (0 if found.merged_at is None else len(found.merged_at))


def _reference_rank(view: View) -> Tensor:
    """(V,) float32 place of each current token among the image's IVC tokens, best lowest.

    Every window gives the same part of its tokens. Before the first stage all tokens are there.
    """
    if "reference_rank" not in view.notes:
        cosine, sine = rotation_scores(view.positions(), view.inverse_frequencies())
        windows = view.image.windows
        rank = torch.minimum(ranks(cosine, windows), ranks(sine, windows)).float()
        if len(windows) > 1:
            sizes = torch.tensor([count for _, count in windows])
            rank = rank / to_device(sizes.repeat_interleave(sizes), rank.device)
        view.notes["reference_rank"] = rank
    return view.notes["reference_rank"][view.index]


def _random_rank(view: View, seed: int) -> Tensor:
    """(V,) float32 place of each current token in a random order of the image's."""
    if "random_rank" not in view.notes:
        name = f"added/{seed}/{view.sample_id}/{view.image.start}"
        order = random_order(name, view.image.length)
        view.notes["random_rank"] = to_device(order.float(), view.index.device)
    return view.notes["random_rank"][view.index]
