"""Which tokens of a forward pass the caches of layers that have run hold, and pruning them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from transformers.cache_utils import Cache

from ivcp.engine.cache import SlotMask, keep_slots, pruned_layer, stored_slots
from ivcp.engine.sample_tokens import pad_left


@dataclass
class Group:
    """Layers whose caches hold the same tokens of this forward pass.

    Attributes:
        layers: Their indices.
        slots: For each sample, where each present token stands among the last `width` slots.
        width: Slots that this forward pass added to each of them.
    """

    layers: range
    slots: list[Tensor]
    width: int


class StoredTokens:
    """All layers that have run, those between two stages in one group."""

    def __init__(self) -> None:
        self.groups: list[Group] = []

    def close_group(self, index: int, columns: list[Tensor], width: int) -> None:
        """The layers since the last stage, up to the one before `index`, hold what is present."""
        first = self.groups[-1].layers.stop if self.groups else 0
        if first < index:
            self.groups.append(Group(range(first, index), columns, width))

    def keep(self, chosen: list[Tensor]) -> None:
        """Of the present tokens of each sample, some stay; caches are left as they are."""
        for group in self.groups:
            group.slots = [
                slots.to(tokens.device)[tokens]
                for slots, tokens in zip(group.slots, chosen, strict=True)
            ]

    def prune(
        self, cache: Cache | None, columns: list[Tensor], mask_of: Callable[[int], SlotMask | None]
    ) -> None:
        """Take tokens that did not stay out of all caches.

        Args:
            cache: The cache, or None.
            columns: For each sample, the columns of its tokens in the rows that go on.
            mask_of: Gives, for a layer, which slots of its whole cache hold tokens then.
        """
        for group in self.groups:
            slots, _ = pad_left(group.slots)  # padded like the rows, so the same slots are real
            for index in group.layers:
                if cache is not None and stored_slots(cache, index):
                    layer = pruned_layer(cache, index)
                    keep_slots(layer, slots, mask_of(index), group.width)
            group.width, group.slots = slots.shape[1], columns
