"""A KV-cache layer that knows two lengths: what the text counts and what is really stored."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from ivcp.core.errors import UserError


class PrunedLayer(DynamicLayer):  # type: ignore[misc]
    """A `DynamicLayer` from which tokens were dropped.

    `get_seq_length` is the logical length, so that positions go on from the original numbering;
    `get_mask_sizes` describes what is stored, shifted so that a causal mask built by the library
    falls on the right tokens.

    Attributes:
        dropped: Logical minus stored length.
        valid: (B, w) False at the slots among the first `w` that only pad shorter rows; later slots
            all count. None if every slot counts.
        renumbered: Whether its tokens have gapless positions instead of their own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0
        self.valid: Tensor | None = None
        self.renumbered = False

    @property
    def stored(self) -> int:
        """Number of slots that are really stored, pads included."""
        return 0 if not self.is_initialized else int(self.keys.shape[-2])

    def get_seq_length(self) -> int:
        return self.stored + self.dropped if self.stored else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.stored + query_length, self.dropped if self.stored else 0

    def reset(self) -> None:
        super().reset()
        self.dropped, self.valid = 0, None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._rows(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        if self.valid is not None:
            self.valid = self.valid.repeat_interleave(repeats, 0)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._rows(indices)

    def _rows(self, indices: Tensor) -> None:
        if self.valid is not None:
            self.valid = self.valid[indices.to(self.valid.device)]


def pruned_layer(cache: Cache, index: int) -> PrunedLayer:
    """Make layer `index` of a cache a `PrunedLayer` (with what it holds) and return it.

    Raises:
        UserError: The cache is not a plain dynamic one.
    """
    while len(cache.layers) <= index:
        cache.layers.append(DynamicLayer())
    layer = cache.layers[index]
    if isinstance(layer, PrunedLayer):
        return layer
    if type(layer) is not DynamicLayer:
        raise UserError(
            f"Pruning needs a dynamic KV cache; got one with {type(layer).__name__}: "
            "call generate without cache_implementation and past_key_values of another kind."
        )
    new = PrunedLayer()
    if layer.is_initialized:
        new.lazy_initialization(layer.keys, layer.values)
        new.keys, new.values = layer.keys, layer.values
    cache.layers[index] = new
    return new


def keep_slots(layer: PrunedLayer, slots: Tensor, valid: Tensor | None, width: int) -> None:
    """Keep, of the last `width` stored tokens of a layer, only the given ones.

    Args:
        layer: The layer to cut, in place.
        slots: (B, P) which of the last `width` slots stay, in their new order.
        valid: (B, P) False where a row is padded, or None.
        width: Number of slots that the last forward pass added.
    """
    past = layer.stored - width
    extend_valid(layer, past, slots.shape[0], valid)
    slots = slots.to(layer.keys.device) + past
    if past:
        before = torch.arange(past, device=slots.device).expand(slots.shape[0], -1)
        slots = torch.cat([before, slots], 1)
    layer.keys, layer.values = take_slots(layer.keys, slots), take_slots(layer.values, slots)
    layer.dropped += past + width - slots.shape[1]


def extend_valid(layer: PrunedLayer, past: int, rows: int, valid: Tensor | None) -> None:
    """Note which of the slots behind the first `past` count; (rows, P) or None for all."""
    if valid is None and layer.valid is None:
        return
    if valid is not None and layer.is_initialized:
        valid = valid.to(layer.keys.device)
    if past == 0 or valid is None:  # later slots count by definition
        layer.valid = valid if past == 0 else layer.valid
        return
    before = torch.ones(rows, past, dtype=torch.bool, device=valid.device)
    if layer.valid is not None:
        before[:, : layer.valid.shape[1]] = layer.valid[:, :past]
    layer.valid = torch.cat([before, valid], 1)


def take_slots(states: Tensor, slots: Tensor) -> Tensor:
    """(B, G, P, D) of (B, G, S, D), the slots (B, P) of each row; one row needs no expansion."""
    if slots.shape[0] == 1:
        return states.index_select(2, slots[0])
    index = slots[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
    return states.gather(2, index)
