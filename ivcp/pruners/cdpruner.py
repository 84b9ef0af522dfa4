"""CDPruner: keep tokens that differ from each other and bear on the question."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ivcp.core.depths import Auto
from ivcp.core.errors import UserError
from ivcp.core.layer_kinds import Kinds
from ivcp.core.pruner import Pruner, Renumbering, Stage
from ivcp.core.selection import Selection, top
from ivcp.core.view import Signal, View

ROUNDING = 1e-5
"""Squared length, of 1, below which a token's part outside the span of the picks is rounding."""
SPANNED = 1e-20
"""What counts instead, so that such tokens come behind all others, the most relevant first."""

NEEDS: dict[str, frozenset[Signal]] = {
    "encoder": frozenset({"hidden", "text_encoder", "question"}),
    "embeddings": frozenset({"hidden", "text_embeddings"}),
}
"""Signals by where relevance comes from."""


@dataclass(frozen=True, kw_only=True)
class CDPruner(Pruner):
    """Greedily keep the tokens with the largest determinant of similarity weighted by relevance.

    The kernel of two tokens is the cosine of their input embeddings, times the relevance of both to
    the question. Each pick is the token that adds most to the determinant of those picked (greedy
    inference for a determinantal point process). Relevance runs from about 0 to 1 in each image.

    Paper: CDPruner (arXiv 2506.10967); release: before the language model.
    Differs from the reference: relevance is scaled within an image, not within a batch; one budget
    and one choice cover all tiles of an image; tokens keep their original positions (`renumber`
    gives the release's); once the picks span all that the tokens have, as many alike do, the most
    relevant ones follow, where the release takes roots of negative rounding errors.

    Attributes:
        keep_ratio: Fraction of visual tokens to keep, in (0, 1] (release: 64 to 192 of 576).
        renumber: New positions of kept tokens, as in `Renumbering` (release: true).
        relevance: "encoder": the cosine of token and question by the text encoder of the vision
            tower (release: CLIP's); "embeddings": the mean cosine of the token's input embedding
            and those of the text queries; "auto": the encoder where the model has one.
        invert: Whether tokens of a low cosine are the relevant ones (release: yes; paper: no), as
            CLIP's patches are known to be least similar to the text that names what they show;
            "auto": with the encoder.
    """

    renumber: Renumbering = False
    relevance: Literal["encoder", "embeddings"] | Auto = "auto"
    invert: bool | Auto = "auto"

    def fitted(
        self,
        model_type: str,
        layers: int,
        provides: frozenset[Signal] = frozenset(),
        kinds: Kinds = (),
    ) -> CDPruner:
        if self.relevance != "auto":
            return self
        return replace(self, relevance="encoder" if "text_encoder" in provides else "embeddings")

    def stages(self) -> tuple[Stage, ...]:
        if self.relevance == "auto":
            raise UserError(
                "The relevance of CDPruner is still open: call pruner.fitted(model_type, layers, "
                'provides) first, or choose "encoder" or "embeddings".'
            )
        return (Stage(0, NEEDS[self.relevance]),)

    def renumbers(self) -> Renumbering:
        return self.renumber

    def select(self, view: View, stage: int) -> Selection:
        target, count = self.target(view), len(view.index)
        if target >= count:
            return Selection(torch.arange(count, device=view.index.device))
        states = normalize(view.hidden().float(), dim=-1)
        if self.relevance == "encoder":
            cosine = view.text_relevance()
        else:
            text = view.text_embeddings()
            cosine = states @ normalize(text.float(), dim=-1).mean(0)
        inverted = self.relevance == "encoder" if self.invert == "auto" else self.invert
        relevance = scaled(-cosine if inverted else cosine)
        return Selection(largest_volume(states, relevance, target).sort().values)


def scaled(relevance: Tensor) -> Tensor:
    """(V,) relevance from 1e-6 of the range, at the lowest, to 1; 1 where all are equal."""
    lowest, highest = relevance.aminmax()
    return (relevance - lowest + 1e-6) / (highest - lowest).clamp_min(1e-6)


@torch.no_grad()
def largest_volume(states: Tensor, weights: Tensor, count: int) -> Tensor:
    """(count,) indices in the order of a greedy choice; ties go to the lower index.

    Each pick is the token whose part outside the span of the picked ones is longest, times its
    weight. This is an incremental Cholesky factorisation, which keeps a row for each pick until the
    picks span all dimensions; then the largest weights follow.

    Args:
        states: (V, C) float32 states of length 1.
        weights: (V,) positive.
        count: Number of tokens, 1 .. V.
    """
    weights, rest = weights**2, torch.ones_like(weights)  # (V,) squared length outside the span
    states = states.nan_to_num(0)  # so that none is picked twice
    rows = states.new_empty(min(count, states.shape[1]), len(states))
    picks: list[Tensor] = []
    for number in range(len(rows)):
        # an index of one element instead of a number, for which the host would wait
        gain = weights * rest.where(rest > ROUNDING, SPANNED)
        pick = gain.nan_to_num(0).argmax(0, keepdim=True)
        picks.append(pick)
        weights = weights.index_fill(0, pick, -1.0)
        earlier = rows[:number]
        row = states @ states[pick][0] - earlier.T @ earlier[:, pick][:, 0]
        rows[number] = row / rest[pick].clamp_min(ROUNDING).sqrt() * (rest[pick] > ROUNDING)
        rest = rest - rows[number] ** 2
    return torch.cat([*picks, top(weights.nan_to_num(0), count - len(rows))])
