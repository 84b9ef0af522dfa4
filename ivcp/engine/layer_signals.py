"""Values, keys and attention of one decoder layer, for all samples of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.core.family import ModelAdapter

SCORES = 2**22
"""Most attention scores that are held at once: 16 MB in float32."""
KEYS = 2**21
"""Most numbers of keys that are held at once in float32: 8 MB, or one head's."""
COLUMNS = 512
"""Most tokens whose keys are projected at once."""


def rotary_rows(rotary: Any, choose: Callable[[Tensor], Tensor]) -> Any:
    """Apply `choose` to position embeddings: a (cos, sin) pair or one complex tensor."""
    if isinstance(rotary, tuple):
        return tuple(choose(angles) for angles in rotary)
    return choose(rotary)


def take_columns(states: Tensor, columns: Tensor) -> Tensor:
    """(..., B, R, D) some columns of each sample; M-RoPE may have a leading axis in the library.

    Args:
        states: (..., B or 1, N, D) hidden states or position embeddings.
        columns: (B, R) indices, different for each sample.
    """
    states = states.expand(*states.shape[:-3], len(columns), *states.shape[-2:])
    index = columns.to(states.device)[..., None].expand(*states.shape[:-2], -1, states.shape[-1])
    return states.gather(-2, index)


def _columns(states: Tensor, columns: slice, device: torch.device) -> Tensor:
    return states[..., columns, :].to(device)


class LayerSignals:
    """The signals of one decoder layer at a stage; each is computed when a pruner reads it.

    Only the rows that a pruner reads are computed: keys and values of a layer that has run come
    from its cache, and attention is computed for single query rows, never as S x S.

    Args:
        adapter: How to look inside the model.
        layer: The decoder layer.
        entering: (B, N, C) its input.
        rotary: Its position embeddings.
        stored: Keys and values in its cache, (B, G, M, D) each: those of earlier turns and, if the
            layer has run, of the `N` tokens that enter; None if the cache holds nothing.
        has_run: Whether the layer has run, so that `stored` holds the tokens that enter.
        real: (B, M + N or M) False at padding among all slots, or None.
        device: Device of the input of the stage's layer.
    """

    def __init__(
        self,
        adapter: ModelAdapter,
        layer: nn.Module,
        entering: Tensor,
        rotary: Any,
        stored: tuple[Tensor, Tensor] | None,
        *,
        has_run: bool,
        real: Tensor | None,
        device: torch.device,
    ) -> None:
        self.adapter, self.layer = adapter, layer
        self.entering, self.rotary = entering, rotary
        self.stored, self.has_run = stored, has_run
        self.real, self.device = real, device
        self._projected: tuple[bool, tuple[Tensor, Tensor]] | None = None

    @property
    def width(self) -> int:
        """`N`, the number of columns that enter; they are the last of all slots."""
        return self.entering.shape[1]

    @cached_property
    def _layer_device(self) -> torch.device:
        """Device of the layer's weights."""
        device = next(self.layer.parameters()).device
        # accelerate's offload leaves weights on "meta" until the layer runs
        return self.entering.device if device.type == "meta" else device

    def _slots(self, *, values: bool) -> tuple[Tensor, Tensor]:
        """Keys and values of all slots as a cache stores them, earlier turns included.

        Args:
            values: Whether values are needed; a layer that has not run must project them.
        """
        if self.has_run and self.stored is not None:
            return self.stored
        if self._projected is None or (values and not self._projected[0]):
            self._projected = values, self._project(values)
        return self._projected[1]

    def _project(self, values: bool) -> tuple[Tensor, Tensor]:
        """The layer's own projections of its input, a few columns at a time."""
        device, past = self._layer_device, 0 if self.stored is None else self.stored[0].shape[2]
        step = max(1, COLUMNS // len(self.entering))
        slots: list[Tensor] = []
        for start in range(0, self.width, step):
            columns = slice(start, start + step)
            rotary = rotary_rows(self.rotary, partial(_columns, columns=columns, device=device))
            hidden = self.entering[:, columns].to(device)
            new = self.adapter.stored_states(self.layer, hidden, rotary, values=values)
            if not slots:
                # keys returned in place of values need no second buffer
                distinct = new[:1] if new[1] is new[0] else new
                shapes = [(*each.shape[:2], past + self.width, each.shape[3]) for each in distinct]
                slots = [new[0].new_empty(shape) for shape in shapes]
                if self.stored is not None:
                    for slot, old in zip(slots, self.stored, strict=False):
                        slot[:, :, :past] = old
            for slot, states in zip(slots, new, strict=False):
                slot[:, :, past + start : past + start + states.shape[2]] = states
        return slots[0], slots[-1]

    def states(self, batch: int | Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """(G, R, D) keys and values of some columns of one sample."""
        keys, values = (states[batch][None] for states in self._slots(values=True))
        columns = (columns + keys.shape[2] - self.width).to(keys.device)
        keys, values = self.adapter.cached_states(
            self.layer, keys[:, :, columns], values[:, :, columns]
        )
        return keys[0].to(self.device), values[0].to(self.device)

    def _queries(self, columns: Tensor, batch: slice) -> Tensor:
        """(B', H, R, D) query states of (B', R) columns."""

        def rows_of(states: Tensor) -> Tensor:
            # rotary may have one row
            samples = states[..., batch, :, :] if states.shape[-3] > 1 else states
            return take_columns(samples, columns).to(self._layer_device)

        rotary = rotary_rows(self.rotary, rows_of)
        return self.adapter.query_states(self.layer, rows_of(self.entering), rotary)

    def _weights(self, columns: Tensor, batch: slice) -> Tensor:
        """(B', R, M) attention that (B', R) columns pay to all slots, mean over heads, float32."""
        stored = [states[batch] for states in self._slots(values=False)]
        keys = self.adapter.cached_states(self.layer, stored[0], stored[1])[0]  # (B', G, M, D)
        query = self._queries(columns, batch).to(keys.device)  # (B', H, R, D)
        rows, groups, slots = keys.shape[:3]
        heads, queries = query.shape[1:3]
        query = query.float() * self.adapter.attention_scale(self.layer)
        # all query heads of a group become rows of one product: broadcasting would copy the keys
        query = query.reshape(rows, groups, -1, query.shape[3])  # (B', G, H / G * R, D)
        number = torch.arange(slots, device=keys.device)
        visible = number <= slots - self.width + columns.to(keys.device)[..., None]  # (B', R, M)
        if self.real is not None:
            visible = visible & self.real[batch, None].to(keys.device)
        total = torch.zeros(rows, queries, slots, device=keys.device)
        step = max(1, KEYS // (rows * slots * keys.shape[3]))
        for start in range(0, groups, step):
            chunk = slice(start, start + step)
            logits = query[:, chunk] @ keys[:, chunk].float().mT
            logits = logits.view(rows, -1, queries, slots)  # (B', H', R, M)
            total += logits.masked_fill_(~visible[:, None], float("-inf")).softmax(-1).sum(1)
        return total / heads

    @cached_property
    def last_attention(self) -> Tensor:
        """(B, N) attention that each row's last token pays to the columns of this pass."""
        rows = len(self.entering)
        ends = torch.full((rows, 1), self.width - 1, device=self.entering.device)
        if self.real is not None:  # rows may be padded on the right
            real = self.real[:, -self.width :].to(ends.device)
            ends = (real * torch.arange(self.width, device=ends.device)).amax(1, keepdim=True)
        step = self._rows_at_once
        weights = [
            self._weights(ends[start : start + step], slice(start, min(rows, start + step)))
            for start in range(0, rows, step)
        ]
        return torch.cat(weights)[:, 0, -self.width :].to(self.device)

    @property
    def _rows_at_once(self) -> int:
        """Number of attention rows of one sample that are computed at once."""
        heads = self.adapter.attention_heads(self.layer)
        return max(1, SCORES // (heads * self._slots(values=False)[0].shape[2]))

    def attention(self, batch: int, columns: Tensor) -> Tensor:
        """(R, N) attention that some columns of one sample pay to the columns of this pass."""
        chunks = [weights for _, weights in self._chunks(batch, columns)]
        return torch.cat(chunks) if chunks else self.entering.new_zeros(0, self.width).float()

    def mean_attention(self, batch: int, columns: Tensor, weights: Tensor) -> Tensor:
        """(N,) weighted mean of the rows of `attention`, a few rows at a time."""
        total = torch.zeros(self.width, device=self.device)
        weights = weights.float().to(self.device)
        if weights.device.type == "cpu":  # on a GPU, `nonzero` would make the host wait
            rows = weights.nonzero()[:, 0]
            columns, weights = columns[rows], weights[rows]
        for start, attention in self._chunks(batch, columns):
            total += weights[start : start + len(attention)] @ attention
        mean: Tensor = total / weights.sum()
        return mean

    def _chunks(self, batch: int, columns: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Attention rows of some columns of one sample, each chunk with the number of its first."""
        step = self._rows_at_once
        for start in range(0, len(columns), step):
            chunk = columns[None, start : start + step]
            weights = self._weights(chunk, slice(batch, batch + 1))[0, :, -self.width :]
            yield start, weights.to(self.device)
