"""What a pruner is shown: one image of one sample, read from a running forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.core.family import Anatomy
from ivcp.core.layout import ImageSpan


@dataclass
class Forward:
    """What the hooks saw of one forward pass; shared by all views.

    Attributes:
        family: How to look inside the model.
        layers: Number of decoder layers.
        positions: (A, B, S) position ids of the chunk.
        embeddings: (B, S, C) inputs of layer 0.
        inverse_frequencies: (D / 2,) rotary frequencies.
        hidden: (B, P, C) inputs of the stage's layer.
        layer: The previous decoder layer, or None before layer 0.
        layer_input: (B, P, C) its input.
        rotary: Its position embeddings.
        keys: (B, G, stored, D) its key states after rotation, past included.
        values: Its value states, likewise.
        valid: (B, stored) which of these slots count, or None for all.
    """

    family: Anatomy
    layers: int
    positions: Tensor
    embeddings: Tensor | None
    inverse_frequencies: Tensor
    hidden: Tensor
    layer: nn.Module | None = None
    layer_input: Tensor | None = None
    rotary: Any = None
    keys: Tensor | None = None
    values: Tensor | None = None
    valid: Tensor | None = None


def rotary_rows(rotary: Any, choose: Callable[[Tensor], Tensor]) -> Any:
    """Apply `choose` to position embeddings, a (cos, sin) pair or one complex tensor."""
    if isinstance(rotary, tuple):
        return tuple(choose(part) for part in rotary)
    return choose(rotary)


@dataclass
class ImageView:
    """Implements `ivcp.core.pruner.View`; every signal is computed when it is asked for.

    Attributes:
        forward: The running forward pass.
        batch: The sample's row.
        image: The image's place and grid in the sample's prompt.
        slots: (V,) column of each current visual token in the present, padded rows.
        index: (V,) the same tokens as indices into the image's own tokens.
        queries: (T,) columns of the text queries in the present rows.
        asking: (T,) the text queries as indices into the prompt.
        first: (S,) column of each prompt token in the rows that entered layer 0.
        make_id: Gives the sample's id.
        notes: What earlier stages of this forward pass left for later ones.
    """

    forward: Forward
    batch: int
    image: ImageSpan
    slots: Tensor
    index: Tensor
    queries: Tensor
    asking: Tensor
    first: Tensor
    make_id: Callable[[], str]
    notes: dict[str, Tensor] = field(default_factory=dict)

    @property
    def sample_id(self) -> str:
        """The caller's id of the sample, else a digest of its prompt."""
        return self.make_id()

    @property
    def layers(self) -> int:
        """Number of decoder layers, `L`."""
        return self.forward.layers

    def positions(self) -> Tensor:
        """(A, V)."""
        columns = self.first[self.image.start + self.index]
        return self.forward.positions[:, self.batch, columns]

    def inverse_frequencies(self) -> Tensor:
        """(D / 2,)."""
        return self.forward.inverse_frequencies

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(T, C) and (V0, C)."""
        if self.forward.embeddings is None:
            raise RuntimeError(
                "the pruner reads embeddings but does not declare that it needs them"
            )
        rows = self.forward.embeddings[self.batch]
        visual = rows[self.first[self.image.start : self.image.stop]]
        return rows[self.first[self.asking]], visual

    def hidden(self) -> Tensor:
        """(V, C)."""
        return self.forward.hidden[self.batch, self.slots]

    def _cached(self, states: Tensor | None) -> Tensor:
        """(G, P, D) of the chunk's tokens."""
        if states is None:
            raise RuntimeError("the stage comes before any layer has run")
        return states[self.batch, :, states.shape[2] - self.forward.hidden.shape[1] :]

    def values(self) -> tuple[Tensor, Tensor]:
        """(G, T, D) and (G, V, D)."""
        values = self._cached(self.forward.values)
        return values[:, self.queries], values[:, self.slots]

    def keys(self) -> Tensor:
        """(G, V, D)."""
        return self._cached(self.forward.keys)[:, self.slots]

    def attention(self, rows: Tensor) -> Tensor:
        """(R, V) computed for the asked rows alone, one key/value head at a time."""
        forward, places = self.forward, self.queries[rows]
        if forward.layer is None or forward.layer_input is None or forward.keys is None:
            raise RuntimeError("the stage comes before any layer has run")
        batch = self.batch
        width = forward.hidden.shape[1]
        keys = forward.keys[batch]  # (G, stored, D)
        stored = keys.shape[1]
        rotary = rotary_rows(
            forward.rotary,
            lambda part: part[batch : batch + 1, places] if len(part) > 1 else part[:, places],
        )
        query = forward.family.query_states(
            forward.layer, forward.layer_input[batch : batch + 1, places], rotary
        )[0]  # (H, R, D)
        seen = torch.arange(stored, device=keys.device) <= stored - width + places[:, None]
        if forward.valid is not None:
            seen = seen & forward.valid[batch]  # (R, stored)
        total = torch.zeros(len(places), len(self.slots), device=keys.device)
        groups = query.reshape(keys.shape[0], -1, *query.shape[1:])  # (G, H / G, R, D)
        for group, key in zip(groups, keys, strict=True):
            logits = group.float() @ key.float().T * query.shape[-1] ** -0.5  # (H / G, R, stored)
            weights = logits.masked_fill(~seen, float("-inf")).softmax(-1)
            total += weights[..., stored - width + self.slots].sum(0)
        return total / query.shape[0]
