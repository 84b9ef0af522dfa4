"""A KV-cache layer with two lengths: the tokens of the text, and the tokens that it stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from ivcp.core.errors import UserError
from ivcp.engine.linear_state import is_linear
from ivcp.engine.sliding import check_length


class SlotMask:
    """Which slots of a cache hold tokens; layers that hold the same tokens share one object.

    Attributes:
        real: (B, w) False at those of the first `w` slots that only pad shorter rows; all later
            slots hold tokens.
    """

    def __init__(self, real: Tensor) -> None:
        self.real = real
        self._changed: tuple[Any, SlotMask] | None = None

    def after(self, change: Any, make: Callable[[], Tensor]) -> SlotMask:
        """The mask after a change of the cache, made once for all layers that share this mask.

        The library changes a cache layer by layer, with the same tensor or number for each, so this
        object remembers the last change and its result.

        Args:
            change: The row indices, the same tensor object for all layers, or a number.
            make: Returns the slots after the change.
        """
        done = self._changed
        # tensors by identity: a comparison of values would make the host wait
        same = done is not None and (
            done[0] is change or (isinstance(change, int) and done[0] == change)
        )
        if done is None or not same:
            self._changed = done = change, SlotMask(make())
        return done[1]

    def pads(self, width: int) -> Tensor:
        """(B, 1) number of padding slots among the first `width`."""
        return (~self.real[:, :width]).sum(1, keepdim=True)


class PrunedLayer(DynamicLayer):  # type: ignore[misc]
    """A `DynamicLayer` from which tokens were dropped.

    `get_seq_length` is the logical length, so that decoding continues the original positions.
    `get_mask_sizes` is the stored length with an offset, so that a causal mask built by the library
    applies to the right tokens.

    Attributes:
        dropped: Logical minus stored length.
        mask: Which slots hold tokens; None if all do.
        renumbered: Whether its tokens have gapless positions instead of their original ones.
        tail: Number of slots at the end, in every row, between which no token was dropped.
        needs_session: Whether the library's masks or positions would be wrong for it, so that it
            may only grow inside a session.
        expected: Whether a session has prepared the running forward pass for it.
        window: Tokens to which the layer attends; None for all.
    """

    keys: Any
    values: Any

    def __init__(self) -> None:
        super().__init__()
        self.window: int | None = None
        self._clear()

    def _clear(self) -> None:
        self.dropped = 0
        self.mask: SlotMask | None = None
        self.renumbered = False
        self.tail = 0
        self.needs_session = False
        self.expected = False

    @property
    def stored(self) -> int:
        """Number of stored slots, padding included."""
        return 0 if not self.is_initialized else int(self.keys.shape[-2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        # `update` is called inside the attention, where wrong masks cannot be corrected any more
        if self.needs_session and not self.expected:
            raise UserError(
                "This KV cache was pruned so that its layers or rows differ; go on with it inside "
                "pruned(...), where masks and positions fit it."
            )
        if self.window is not None:
            check_length(self.get_seq_length() + key_states.shape[-2], self.window)
        self.expected = False
        self.tail += key_states.shape[-2]
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        return keys, values

    def get_seq_length(self) -> int:
        # `dropped` is set before the layer runs; until it has stored keys, it counts as empty
        return self.stored + self.dropped if self.stored else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.stored + query_length, self.dropped if self.stored else 0

    def reset(self) -> None:
        # layers of transformers before 5.18 keep their length and fill it with zeros
        self.keys = self.values = None
        self.is_initialized = False
        super().reset()
        self._clear()

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens.

        Args:
            tokens_to_remove: Their number, negative.

        Raises:
            UserError: Tokens were dropped between them, or the number is positive.
        """
        if tokens_to_remove > 0:  # transformers before 5.15 takes it as the length to keep
            raise UserError(
                "crop of a pruned cache takes a negative number, that of the last tokens to "
                f"remove; got {tokens_to_remove}."
            )
        count = -tokens_to_remove
        if count > self.tail:
            raise UserError(
                f"Only the last {self.tail} tokens of this pruned cache can be removed, since "
                f"tokens were dropped before them; asked to remove {count}."
            )
        stored = self.stored - count
        if count:
            self.keys, self.values = self.keys[..., :stored, :], self.values[..., :stored, :]
        self.tail -= count
        if (mask := self.mask) is not None and mask.real.shape[1] > stored:
            self.mask = mask.after(stored, lambda: mask.real[:, :stored])

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._select_rows(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        if (mask := self.mask) is not None:
            self.mask = mask.after(repeats, lambda: mask.real.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._select_rows(indices)

    def _select_rows(self, indices: Tensor) -> None:
        if (mask := self.mask) is not None:
            self.mask = mask.after(indices, lambda: mask.real[indices.to(mask.real.device)])


def cache_of(named: Mapping[str, Any]) -> Any:
    """The cache among keyword arguments or outputs; `transformers` calls it `cache` since 5.24."""
    cache = named.get("past_key_values")
    return named.get("cache") if cache is None else cache


def pruned_layer(cache: Cache, index: int, past: SlotMask | None = None) -> PrunedLayer:
    """Layer `index` of a cache as a `PrunedLayer`, which replaces it and takes over its slots.

    Args:
        cache: The cache.
        index: The layer.
        past: Which slots hold tokens if the layer was never pruned; None for all.
    """
    while len(cache.layers) <= index:  # a cache may make its layers only when they run
        cache.layers.append(DynamicLayer())
    layer = cache.layers[index]
    if isinstance(layer, PrunedLayer):
        return layer
    check_cache(cache)
    new = PrunedLayer()
    if isinstance(layer, DynamicSlidingWindowLayer):
        new.window = layer.sliding_window
        check_length(layer.cumulative_length, layer.sliding_window)  # else it has lost some
    if layer.is_initialized:
        new.lazy_initialization(layer.keys, layer.values)
        new.keys, new.values = layer.keys, layer.values
        new.tail, new.mask = new.stored, past
    cache.layers[index] = new
    return new


def stored_slots(cache: Cache | None, index: int) -> int:
    """Slots that layer `index` of a cache stores; 0 for a linear layer."""
    if cache is None or index >= len(cache.layers) or is_linear(cache.layers[index]):
        return 0
    layer = cache.layers[index]
    return int(layer.keys.shape[2]) if layer.is_initialized else 0


def check_cache(cache: Any) -> None:
    """Refuse a cache that cannot be pruned.

    Raises:
        UserError: It is not a plain dynamic one.
    """
    if not isinstance(cache, Cache):
        raise UserError(f"Pruning needs a dynamic KV cache; got {type(cache).__name__}.")
    kinds = {type(layer) for layer in cache.layers if not is_linear(layer)}
    kinds -= {DynamicLayer, DynamicSlidingWindowLayer, PrunedLayer}
    replicated = getattr(cache, "layer_class_to_replicate", None)
    if replicated not in (None, DynamicLayer):
        kinds.add(replicated)
    offloaded = bool(getattr(cache, "offloading", False))
    if kinds or offloaded:
        named = ", ".join(sorted(kind.__name__ for kind in kinds)) or "offloading"
        raise UserError(
            f"Pruning needs a dynamic KV cache; got one with {named}: "
            "call generate without cache_implementation or with a static one, and without "
            "past_key_values of another kind."
        )


def keep_slots(layer: PrunedLayer, slots: Tensor, mask: SlotMask | None, width: int) -> None:
    """Prune the last `width` slots of a layer, in place; earlier slots are kept.

    Args:
        layer: The layer.
        slots: (B, P) indices into the last `width` slots: those to keep, in their new order.
        mask: Which slots of the pruned layer hold tokens, or None if all do.
        width: Number of slots that the last forward pass added.
    """
    past = layer.stored - width  # slots of earlier turns
    layer.mask = mask
    slots = slots.to(layer.keys.device) + past
    if past:
        before = torch.arange(past, device=slots.device).expand(slots.shape[0], -1)
        slots = torch.cat([before, slots], 1)
    layer.keys, layer.values = take_slots(layer.keys, slots), take_slots(layer.values, slots)
    layer.dropped += past + width - slots.shape[1]


def take_slots(states: Tensor, slots: Tensor) -> Tensor:
    """(B, G, P, D) states at the slots (B, P) of (B, G, S, D)."""
    if slots.shape[0] == 1:  # saves an index of the size of the states
        return states.index_select(2, slots[0])
    index = slots[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
    return states.gather(2, index)
