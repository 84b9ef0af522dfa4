"""A KV-cache layer that knows two lengths: what the text counts and what is really stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from ivcp.core.errors import UserError


class SlotMask:
    """Which of the first slots of a cache hold tokens; layers that hold the same tokens share one.

    Attributes:
        real: (B, w) False at the slots among the first `w` that only pad shorter rows; later slots
            all hold tokens.
    """

    def __init__(self, real: Tensor) -> None:
        self.real = real
        self._last: tuple[Any, SlotMask] | None = None

    def after(self, change: Any, make: Callable[[], Tensor]) -> SlotMask:
        """The mask after a change of the cache, made once for all layers that share it.

        Args:
            change: The tensor of row indices, the very same for all layers, or a number.
            make: Makes the slots after the change.
        """
        last = self._last
        same = last is not None and (
            last[0] is change or (isinstance(change, int) and last[0] == change)
        )
        if last is None or not same:
            self._last = last = change, SlotMask(make())
        return last[1]

    def pads(self, width: int) -> Tensor:
        """(B, 1) padding among the first `width` slots."""
        return (~self.real[:, :width]).sum(1, keepdim=True)


class PrunedLayer(DynamicLayer):  # type: ignore[misc]
    """A `DynamicLayer` from which tokens were dropped.

    `get_seq_length` is the logical length, so that positions go on from the original numbering;
    `get_mask_sizes` describes what is stored, shifted so that a causal mask built by the library
    falls on the right tokens.

    Attributes:
        dropped: Logical minus stored length.
        mask: Which slots hold tokens; None if all do.
        renumbered: Whether its tokens have gapless positions instead of their own.
        tail: How many of the last slots follow each other without a gap, in every row.
        needs_session: Whether the library's own masks or positions would be wrong for it, so that
            it may only grow inside a session.
        expected: Whether a session has prepared the running forward pass for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._forget()

    def _forget(self) -> None:
        self.dropped = 0
        self.mask: SlotMask | None = None
        self.renumbered = False
        self.tail = 0
        self.needs_session = False
        self.expected = False

    @property
    def stored(self) -> int:
        """Number of slots that are really stored, pads included."""
        return 0 if not self.is_initialized else int(self.keys.shape[-2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if self.needs_session and not self.expected:
            raise UserError(
                "This KV cache was pruned so that its layers or rows differ; go on with it inside "
                "pruned(...), where masks and positions fit it."
            )
        self.expected = False
        self.tail += key_states.shape[-2]
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        return keys, values

    def get_seq_length(self) -> int:
        return self.stored + self.dropped if self.stored else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.stored + query_length, self.dropped if self.stored else 0

    def reset(self) -> None:
        super().reset()
        self._forget()

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens.

        Raises:
            UserError: Tokens were dropped among them.
        """
        count = abs(tokens_to_remove)
        if count > self.tail:
            raise UserError(
                f"Only the last {self.tail} tokens of this pruned cache can be removed, since "
                f"tokens were dropped before them; asked to remove {count}."
            )
        super().crop(tokens_to_remove)
        self.tail -= count
        stored = self.stored
        if (mask := self.mask) is not None and mask.real.shape[1] > stored:
            self.mask = mask.after(stored, lambda: mask.real[:, :stored])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._rows(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        if (mask := self.mask) is not None:
            self.mask = mask.after(repeats, lambda: mask.real.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._rows(indices)

    def _rows(self, indices: Tensor) -> None:
        if (mask := self.mask) is not None:
            self.mask = mask.after(indices, lambda: mask.real[indices.to(mask.real.device)])


def pruned_layer(cache: Cache, index: int, past: SlotMask | None = None) -> PrunedLayer:
    """Make layer `index` of a cache a `PrunedLayer` (with what it holds) and return it.

    Args:
        cache: The cache.
        index: The layer.
        past: Which slots of a layer that was never pruned hold tokens; None for all.
    """
    while len(cache.layers) <= index:
        cache.layers.append(DynamicLayer())
    layer = cache.layers[index]
    if isinstance(layer, PrunedLayer):
        return layer
    check_cache(cache)
    new = PrunedLayer()
    if layer.is_initialized:
        new.lazy_initialization(layer.keys, layer.values)
        new.keys, new.values = layer.keys, layer.values
        new.tail, new.mask = new.stored, past
    cache.layers[index] = new
    return new


def stored_slots(cache: Cache | None, index: int) -> int:
    """Slots that layer `index` of a cache stores."""
    if cache is None or index >= len(cache.layers) or not cache.layers[index].is_initialized:
        return 0
    return int(cache.layers[index].keys.shape[2])


def check_cache(cache: Any) -> None:
    """Refuse a cache that cannot be pruned.

    Raises:
        UserError: It is not a plain dynamic one.
    """
    if not isinstance(cache, Cache):
        raise UserError(f"Pruning needs a dynamic KV cache; got {type(cache).__name__}.")
    kinds = {type(layer) for layer in cache.layers} - {DynamicLayer, PrunedLayer}
    replicated = getattr(cache, "layer_class_to_replicate", None)
    if replicated not in (None, DynamicLayer):
        kinds.add(replicated)
    offloaded = bool(getattr(cache, "offloading", False))
    if kinds or offloaded:
        named = ", ".join(sorted(kind.__name__ for kind in kinds)) or "offloading"
        raise UserError(
            f"Pruning needs a dynamic KV cache; got one with {named}: "
            "call generate without cache_implementation and past_key_values of another kind."
        )


def keep_slots(layer: PrunedLayer, slots: Tensor, mask: SlotMask | None, width: int) -> None:
    """Keep, of the last `width` stored tokens of a layer, only the given ones.

    Args:
        layer: The layer to cut, in place.
        slots: (B, P) which of the last `width` slots stay, in their new order.
        mask: Which slots of the whole layer hold tokens once it is cut, or None if all do.
        width: Number of slots that the last forward pass added.
    """
    past = layer.stored - width
    layer.mask = mask
    slots = slots.to(layer.keys.device) + past
    if past:
        before = torch.arange(past, device=slots.device).expand(slots.shape[0], -1)
        slots = torch.cat([before, slots], 1)
    layer.keys, layer.values = take_slots(layer.keys, slots), take_slots(layer.values, slots)
    layer.dropped += past + width - slots.shape[1]


def take_slots(states: Tensor, slots: Tensor) -> Tensor:
    """(B, G, P, D) of (B, G, S, D), the slots (B, P) of each row; one row needs no expansion."""
    if slots.shape[0] == 1:
        return states.index_select(2, slots[0])
    index = slots[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
    return states.gather(2, index)
