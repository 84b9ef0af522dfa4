"""Which tokens of a forward pass the caches of earlier layers hold, and how they are pruned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ivcp.engine.cache import SlotMask, keep_slots, pruned_layer, stored_slots
from ivcp.engine.kept_batch import KeptBatch


@dataclass
class LayerGroup:
    """Layers whose caches hold the same tokens of this forward pass.

    Attributes:
        layers: Their indices.
        slots: For each sample, the slot of each remaining token among the last `width` slots.
        width: Slots that this forward pass added to each of these caches.
    """

    layers: range
    slots: list[Tensor]
    width: int


class StoredTokens:
    """All layers that have run; the layers between two stages are one group."""

    def __init__(self) -> None:
        self.groups: list[LayerGroup] = []

    def close_group(self, index: int, columns: list[Tensor], width: int) -> None:
        """Group the layers since the last stage, up to the layer before `index`.

        Args:
            index: The layer before which the next stage prunes.
            columns: For each sample, the columns of its tokens in these layers.
            width: Columns in these layers.
        """
        start = self.groups[-1].layers.stop if self.groups else 0
        if start < index:
            self.groups.append(LayerGroup(range(start, index), columns, width))

    def keep(self, kept: KeptBatch) -> None:
        """Follow a stage that keeps some tokens of each sample; caches are not changed."""
        for group in self.groups:
            group.slots = kept.split(kept.of(group.slots))

    def prune(
        self,
        cache: Cache | None,
        kept: KeptBatch,
        columns: list[Tensor],
        mask_of: Callable[[int], SlotMask | None],
    ) -> None:
        """Remove dropped tokens from the caches of all layers that have run.

        Args:
            cache: The cache, or None.
            kept: What the stage has kept, behind `keep`.
            columns: For each sample, the columns of its tokens behind the stage.
            mask_of: Which slots of a layer's pruned cache hold tokens.
        """
        for group in self.groups:
            # padded like the hidden states, so that one mask serves earlier and later layers
            slots = kept.padded(torch.cat(group.slots))
            for index in group.layers:
                if cache is not None and stored_slots(cache, index):
                    layer = pruned_layer(cache, index)
                    keep_slots(layer, slots, mask_of(index), group.width)
            group.width, group.slots = slots.shape[1], columns
