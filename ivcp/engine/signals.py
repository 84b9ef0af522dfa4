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
    """Apply `choose` to position embeddings, a (cos, sin) pair or one complex tensor."""
    if isinstance(rotary, tuple):
        return tuple(choose(part) for part in rotary)
    return choose(rotary)


def _columns(part: Tensor, columns: slice, device: torch.device) -> Tensor:
    return part[:, columns].to(device)


class LayerSignals:
    """What one decoder layer shows at a stage; each is computed at most once, when asked for.

    Args:
        adapter: How to look inside the model.
        layer: The decoder layer.
        entering: (B, N, C) its input.
        rotary: Its position embeddings.
        stored: What its cache stores as keys and values, (B, G, M, D) each: the `N` tokens that
            enter, if the layer has run, behind those of earlier turns; None if nothing.
        has_run: Whether the layer has run, so that `stored` holds the tokens that enter.
        real: (B, M + N or M) False at padding among all slots, or None.
        device: Where the stage's layer takes its input.
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
        """`N`, the columns of the tokens that enter; they are the last of all slots."""
        return self.entering.shape[1]

    @cached_property
    def _there(self) -> torch.device:
        """Where the layer computes; weights that are fetched to run it are nowhere until then."""
        device = next(self.layer.parameters()).device
        return self.entering.device if device.type == "meta" else device

    def _slots(self, *, values: bool) -> tuple[Tensor, Tensor]:
        """What a cache would store of all slots, earlier turns included.

        Args:
            values: Whether the second part is needed; where it must be projected, it costs as much.
        """
        if self.has_run and self.stored is not None:
            return self.stored
        if self._projected is None or (values and not self._projected[0]):
            self._projected = values, self._project(values)
        return self._projected[1]

    def _project(self, values: bool) -> tuple[Tensor, Tensor]:
        """The layer's own projections of what enters it, a few columns at a time."""
        there, old = self._there, 0 if self.stored is None else self.stored[0].shape[2]
        some = max(1, COLUMNS // len(self.entering))
        slots: list[Tensor] = []
        for start in range(0, self.width, some):
            columns = slice(start, start + some)
            rotary = rotary_rows(self.rotary, partial(_columns, columns=columns, device=there))
            hidden = self.entering[:, columns].to(there)
            parts = self.adapter.stored_states(self.layer, hidden, rotary, values=values)
            if not slots:  # the keys stand in for values that nobody needs
                kinds = parts[:1] if parts[1] is parts[0] else parts
                shapes = [(*part.shape[:2], old + self.width, part.shape[3]) for part in kinds]
                slots = [parts[0].new_empty(shape) for shape in shapes]
                if self.stored is not None:
                    for slot, part in zip(slots, self.stored, strict=False):
                        slot[:, :, :old] = part
            for slot, part in zip(slots, parts, strict=False):
                slot[:, :, old + start : old + start + part.shape[2]] = part
        return slots[0], slots[-1]

    def states(self, batch: int, columns: Tensor) -> tuple[Tensor, Tensor]:
        """(G, R, D) keys and values of columns of one sample."""
        keys, values = (part[batch : batch + 1] for part in self._slots(values=True))
        columns = (columns + keys.shape[2] - self.width).to(keys.device)
        keys, values = self.adapter.cached_states(
            self.layer, keys[:, :, columns], values[:, :, columns]
        )
        return keys[0].to(self.device), values[0].to(self.device)

    def _queries(self, columns: Tensor, batch: slice) -> Tensor:
        """(B', H, R, D) query states of (B', R) columns."""
        there = self._there
        index = columns.to(self.entering.device)

        def rows_of(part: Tensor) -> Tensor:
            sample = (part[batch] if len(part) > 1 else part).expand(len(index), *part.shape[1:])
            at = index.to(part.device)[..., None].expand(-1, -1, part.shape[-1])
            return sample.gather(1, at).to(there)

        rotary = rotary_rows(self.rotary, rows_of)
        return self.adapter.query_states(self.layer, rows_of(self.entering), rotary)

    def _weights(self, columns: Tensor, batch: slice) -> Tensor:
        """(B', R, M) attention that (B', R) columns pay to all slots, mean over heads, float32."""
        stored = [part[batch] for part in self._slots(values=False)]
        keys = self.adapter.cached_states(self.layer, stored[0], stored[1])[0]  # (B', G, M, D)
        query = self._queries(columns, batch).to(keys.device)  # (B', H, R, D)
        rows, groups, slots = keys.shape[:3]
        heads, queries = query.shape[1:3]
        query = query.float() * self.adapter.attention_scale(self.layer)
        # The queries of a group are folded into its rows: broadcasting would copy keys for each.
        query = query.reshape(rows, groups, -1, query.shape[3])  # (B', G, H / G * R, D)
        number = torch.arange(slots, device=keys.device)
        seen = number <= slots - self.width + columns.to(keys.device)[..., None]  # (B', R, M)
        if self.real is not None:
            seen = seen & self.real[batch, None].to(keys.device)
        total = torch.zeros(rows, queries, slots, device=keys.device)
        some = max(1, KEYS // (rows * slots * keys.shape[3]))
        for first in range(0, groups, some):
            some_groups = slice(first, first + some)
            logits = query[:, some_groups] @ keys[:, some_groups].float().mT
            logits = logits.view(rows, -1, queries, slots)  # (B', H', R, M)
            total += logits.masked_fill_(~seen[:, None], float("-inf")).softmax(-1).sum(1)
        return total / heads

    @cached_property
    def last(self) -> Tensor:
        """(B, N) attention that each row's last column pays to the columns of this pass."""
        rows = len(self.entering)
        ends = torch.full((rows, 1), self.width - 1, device=self.entering.device)
        if self.real is not None:  # rows may be padded on the right
            there = self.real[:, -self.width :].to(ends.device)
            places = torch.arange(self.width, device=ends.device)
            ends = (there * places).amax(1, keepdim=True)
        some = self._rows_at_once
        parts = [
            self._weights(ends[start : start + some], slice(start, min(rows, start + some)))
            for start in range(0, rows, some)
        ]
        return torch.cat(parts)[:, 0, -self.width :].to(self.device)

    @property
    def _rows_at_once(self) -> int:
        """Attention rows of one sample that are computed at once."""
        heads = self.adapter.attention_heads(self.layer)
        return max(1, SCORES // (heads * self._slots(values=False)[0].shape[2]))

    def attention(self, batch: int, columns: Tensor) -> Tensor:
        """(R, N) attention that columns of one sample pay to the columns of this pass."""
        parts = [weights for _, weights in self._chunks(batch, columns)]
        return torch.cat(parts) if parts else self.entering.new_zeros(0, self.width).float()

    def mean_attention(self, batch: int, columns: Tensor, weights: Tensor) -> Tensor:
        """(N,) weighted mean of the rows of `attention`, a few rows at a time."""
        total = torch.zeros(self.width, device=self.device)
        weights = weights.float().to(self.device)
        if weights.device.type == "cpu":  # elsewhere the host would wait for the count
            rows = weights.nonzero()[:, 0]
            columns, weights = columns[rows], weights[rows]
        for start, part in self._chunks(batch, columns):
            total += weights[start : start + len(part)] @ part
        mean: Tensor = total / weights.sum()
        return mean

    def _chunks(self, batch: int, columns: Tensor) -> Iterator[tuple[int, Tensor]]:
        some = self._rows_at_once
        for start in range(0, len(columns), some):
            part = columns[None, start : start + some]
            weights = self._weights(part, slice(batch, batch + 1))[0, :, -self.width :]
            yield start, weights.to(self.device)
