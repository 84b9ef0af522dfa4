"""What a pruner is shown: one image of one sample, read from a running forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.core.devices import to_device
from ivcp.core.family import Anatomy
from ivcp.core.layout import ImageLayout
from ivcp.engine.rows import Row, Visual


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
        keys: (B, G, stored, D) what the cache stores as its keys, past included.
        values: What the cache stores as its values, likewise.
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
        row: What is left of the sample.
        visual: What is left of the image.
        asking: (T,) the text queries as indices into the prompt, on the CPU.
        make_id: Gives the sample's id.
    """

    forward: Forward
    batch: int
    row: Row
    visual: Visual
    asking: Tensor
    make_id: Callable[[], str]

    @property
    def image(self) -> ImageLayout:
        """The image's grids and their places in the prompt."""
        return self.visual.layout

    @property
    def index(self) -> Tensor:
        """(V,) the current visual tokens as indices into the image's own tokens."""
        return self.visual.index

    @property
    def notes(self) -> dict[str, Tensor]:
        """What earlier stages of this forward pass left for later ones."""
        return self.visual.notes

    @cached_property
    def slots(self) -> Tensor:
        """(V,) column of each current visual token in the present, padded rows."""
        return self.row.columns[self.visual.places]

    @cached_property
    def queries(self) -> Tensor:
        """(T,) columns of the text queries in the present rows."""
        return self.row.queries(self.asking)

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
        columns = self.row.first[self.visual.tokens[self.index]]
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
        first, tokens = self.row.first.to(rows.device), self.visual.tokens.to(rows.device)
        asking = to_device(self.asking, rows.device)
        device = self.forward.hidden.device
        return rows[first[asking]].to(device), rows[first[tokens]].to(device)

    def hidden(self) -> Tensor:
        """(V, C)."""
        return self.forward.hidden[self.batch, self.slots]

    def _states(self, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(G, N, D) keys and values of the chunk's columns; of all stored slots if None."""
        forward, batch = self.forward, self.batch
        if forward.layer is None or forward.keys is None or forward.values is None:
            raise RuntimeError("the stage comes before any layer has run")
        keys, values = forward.keys[batch], forward.values[batch]
        if columns is not None:
            columns = (columns + keys.shape[1] - forward.hidden.shape[1]).to(keys.device)
            keys, values = keys[:, columns], values[:, columns]
        keys, values = forward.family.cached_states(forward.layer, keys, values)
        return keys.to(forward.hidden.device), values.to(forward.hidden.device)

    def values(self) -> tuple[Tensor, Tensor]:
        """(G, T, D) and (G, V, D)."""
        _, values = self._states(torch.cat([self.queries, self.slots]))
        text, visual = torch.split(values, [len(self.queries), len(self.slots)], 1)
        return text, visual

    def other_values(self) -> Tensor:
        """(G, O, D)."""
        others = [image.places for image in self.row.images if image is not self.visual]
        return self._states(self.row.columns[torch.cat([self.row.text, *others])])[1]

    def keys(self) -> Tensor:
        """(G, V, D)."""
        return self._states(self.slots)[0]

    def attention(self, rows: Tensor) -> Tensor:
        """(R, V) computed for the asked rows alone, one key/value head at a time."""
        forward, places = self.forward, self.queries[rows]
        if forward.layer is None or forward.layer_input is None:
            raise RuntimeError("the stage comes before any layer has run")
        batch = self.batch
        width = forward.hidden.shape[1]
        keys, _ = self._states()  # (G, stored, D)
        stored = keys.shape[1]
        there = next(forward.layer.parameters()).device

        def asked(part: Tensor) -> Tensor:
            own = part[batch : batch + 1] if len(part) > 1 else part
            return own[:, places.to(part.device)].to(there)

        rotary = rotary_rows(forward.rotary, asked)
        query = forward.family.query_states(forward.layer, asked(forward.layer_input), rotary)
        query = query[0].to(keys.device)  # (H, R, D)
        seen = torch.arange(stored, device=keys.device) <= stored - width + places[:, None]
        if forward.valid is not None:
            seen = seen & forward.valid[batch]  # (R, stored)
        total = torch.zeros(len(places), len(self.slots), device=keys.device)
        groups = query.reshape(keys.shape[0], -1, *query.shape[1:])  # (G, H / G, R, D)
        scale = forward.layer.self_attn.scaling  # type: ignore[union-attr]
        for group, key in zip(groups, keys, strict=True):
            logits = group.float() @ key.float().T * scale  # (H / G, R, stored)
            weights = logits.masked_fill(~seen, float("-inf")).softmax(-1)
            total += weights[..., stored - width + self.slots].sum(0)
        return total / query.shape[0]
