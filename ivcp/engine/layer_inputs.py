"""Masks and position embeddings for decoder layers whose cache the library does not understand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ivcp.engine.cache import SlotMask, pruned_layer
from ivcp.engine.masks import attention_mask


class LayerInputs:
    """What layers are called with while the same tokens enter them.

    The library derives masks from the cache of the first layer. A pruned layer stores fewer tokens
    than the text counts, possibly fewer than other layers and with gaps between rows, so its mask
    is made here, once for all layers that store the same tokens.

    Args:
        decoder: The language model; gives rotary embeddings for renumbered caches.
        axes: Axes of its position ids.
        backend: Attention backend, decides the form of masks.
        real: (B, N) False at padding among the tokens that enter, or None.
        past: Which slots of caches that were never pruned hold tokens, or None for all.
    """

    def __init__(
        self,
        decoder: nn.Module,
        axes: int,
        backend: str,
        real: Tensor | None,
        past: SlotMask | None,
    ) -> None:
        self.decoder, self.axes, self.backend = decoder, axes, backend
        self.real, self.past = real, past
        self._grown: dict[tuple[SlotMask | None, int], SlotMask | None] = {}
        self._masks: dict[tuple[SlotMask | None, int, torch.device], Tensor | None] = {}
        self._rotary: dict[tuple[SlotMask | None, int, torch.device], Any] = {}

    def without_cache(self, hidden: Tensor) -> dict[str, Any]:
        """Changed keyword arguments of a layer that stores nothing."""
        return self._changed(None, 0, hidden)

    def with_cache(self, cache: Cache, index: int, hidden: Tensor) -> dict[str, Any]:
        """Changed keyword arguments of layer `index`, whose cache becomes a pruned one.

        Args:
            cache: The cache.
            index: The layer.
            hidden: (B, N, C) states of the tokens that enter.
        """
        layer = pruned_layer(cache, index, self.past)
        layer.expected = True
        before, layer.mask = layer.mask, self.grown(layer.mask, layer.stored)
        changed = self._changed(before, layer.stored, hidden)
        if layer.renumbered:
            changed["position_embeddings"] = self.gapless(before, layer.stored, hidden)
        return changed

    def grown(self, mask: SlotMask | None, stored: int) -> SlotMask | None:
        """The mask of a cache once the new tokens stand behind its `stored` slots."""
        if self.real is None:
            return mask  # later slots hold tokens by definition
        key = (mask, stored)
        if key not in self._grown:
            real = self.real
            if stored:
                before = torch.ones(len(real), stored, dtype=torch.bool, device=real.device)
                if mask is not None:
                    past = mask.real[:, :stored].to(real.device)
                    before[:, : past.shape[1]] = past
                real = torch.cat([before, real], 1)
            self._grown[key] = SlotMask(real)
        return self._grown[key]

    def gapless(self, mask: SlotMask | None, stored: int, hidden: Tensor) -> Any:
        """Position embeddings that count the tokens a cache really stores, then the new ones."""
        key = (mask, stored, hidden.device)
        if key not in self._rotary:
            rows, width = hidden.shape[:2]
            ids = torch.arange(width, device=hidden.device).expand(rows, -1)
            if self.real is not None:
                ids = (self.real.to(hidden.device).cumsum(1) - 1).clamp_min(0)
            ids = ids + stored
            if mask is not None:
                ids = ids - mask.pads(stored).to(hidden.device)
            if self.axes > 1:
                ids = ids.expand(self.axes, -1, -1)
            self._rotary[key] = self.decoder.rotary_emb(hidden, ids)  # type: ignore[operator]
        return self._rotary[key]

    def _changed(self, mask: SlotMask | None, stored: int, hidden: Tensor) -> dict[str, Any]:
        width = hidden.shape[1]
        key = (mask, stored, hidden.device)
        if key not in self._masks:
            grown = self.grown(mask, stored)
            self._masks[key] = attention_mask(
                self.backend, width, None if grown is None else grown.real, stored + width, hidden
            )
        return {
            "attention_mask": self._masks[key],
            "position_ids": None,  # flash attention would take gaps for packed sequences
        }
