"""Masks and position embeddings for decoder layers whose cache was pruned."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ivcp.core.layer_kinds import LayerKind
from ivcp.engine.cache import PrunedLayer, SlotMask, pruned_layer
from ivcp.engine.context import SessionContext
from ivcp.engine.linear_state import expect
from ivcp.engine.masks import attention_mask


class LayerInputs:
    """Inputs of the layers that the same tokens enter.

    The library derives one mask from the cache of layer 0. A pruned layer stores fewer tokens than
    the text has, perhaps fewer than other layers, and its rows may be padded. So its mask is made
    here, once for all layers that store the same tokens.

    Args:
        context: What all forward passes of the session have in common.
        backend: Attention backend, on which the form of masks depends.
        real: (B, N) False at padding among the tokens that enter, or None.
        past: Which slots of a cache that was never pruned hold tokens, or None for all.
        blocks: (B, N) number of the image of each token that enters, -1 for text, if tokens of an
            image attend to each other in both directions; else None.
    """

    def __init__(
        self,
        context: SessionContext,
        backend: str,
        real: Tensor | None,
        past: SlotMask | None,
        blocks: Tensor | None = None,
    ) -> None:
        self.context, self.backend = context, backend
        self.real, self.past, self.blocks = real, past, blocks
        # by `SlotMask` object: layers that store the same tokens share it, and so these
        self._grown: dict[tuple[SlotMask | None, int], SlotMask | None] = {}
        self._masks: dict[tuple[SlotMask | None, int, torch.device], Tensor | None] = {}
        self._rotary: dict[tuple[SlotMask | None, int, torch.device, LayerKind], Any] = {}

    def without_cache(self, hidden: Tensor) -> dict[str, Any]:
        """Keyword arguments to change for a layer that stores nothing."""
        return self._changed(None, 0, hidden)

    def with_cache(self, cache: Cache, index: int, hidden: Tensor) -> dict[str, Any]:
        """Keyword arguments to change for layer `index`, whose cache becomes a `PrunedLayer`.

        Args:
            cache: The cache.
            index: The layer.
            hidden: (B, N, C) states of the tokens that enter.
        """
        layer = pruned_layer(cache, index, self.past)
        expect(layer)
        before, layer.mask = layer.mask, self.grown(layer.mask, layer.stored)
        changed = self._changed(before, layer.stored, hidden)
        if layer.renumbered:
            kind = self.context.kinds[index]
            changed["position_embeddings"] = self.gapless(before, layer.stored, hidden, kind)
        return changed

    def of_linear(self, hidden: Tensor) -> dict[str, Any]:
        """Keyword arguments to change for a linear layer, which takes a mask of the new tokens.

        Args:
            hidden: (B, N, C) states of the tokens that enter.
        """
        mask = None if self.real is None else self.real.to(hidden.device)
        return {"attention_mask": mask, "position_ids": None}

    def of_language_model(self, layer: PrunedLayer, hidden: Tensor) -> dict[str, Any]:
        """Keyword arguments to change for a language model whose layers are all like this one."""
        changed = {
            "attention_mask": self._changed(layer.mask, layer.stored, hidden)["attention_mask"]
        }
        if layer.renumbered:
            changed["position_ids"] = self._gapless_ids(layer.mask, layer.stored, hidden)
        return changed

    def grown(self, mask: SlotMask | None, stored: int) -> SlotMask | None:
        """The mask of a cache after the new tokens have been added behind its `stored` slots."""
        if self.real is None:
            return mask  # by its definition, slots beyond a mask hold tokens
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

    def gapless(self, mask: SlotMask | None, stored: int, hidden: Tensor, kind: LayerKind) -> Any:
        """Position embeddings of the new tokens, numbered right behind the tokens of the cache."""
        key = (mask, stored, hidden.device, kind)
        if key not in self._rotary:
            ids, context = self._gapless_ids(mask, stored, hidden), self.context
            self._rotary[key] = context.adapter.rotary(context.decoder, hidden, ids, kind)
        return self._rotary[key]

    def _gapless_ids(self, mask: SlotMask | None, stored: int, hidden: Tensor) -> Tensor:
        rows, width = hidden.shape[:2]
        ids = torch.arange(width, device=hidden.device).expand(rows, -1)
        if self.real is not None:
            ids = (self.real.to(hidden.device).cumsum(1) - 1).clamp_min(0)
        ids = ids + stored
        if mask is not None:  # padding slots have no position
            ids = ids - mask.pads(stored).to(hidden.device)
        axes = self.context.axes
        return ids.expand(axes, -1, -1) if axes > 1 else ids

    def _changed(self, mask: SlotMask | None, stored: int, hidden: Tensor) -> dict[str, Any]:
        width = hidden.shape[1]
        key = (mask, stored, hidden.device)
        if key not in self._masks:
            grown = self.grown(mask, stored)
            real = None if grown is None else grown.real
            self._masks[key] = attention_mask(
                self.backend, width, real, stored + width, hidden, self.blocks
            )
        return {
            "attention_mask": self._masks[key],
            "position_ids": None,  # flash attention would take gaps for borders of packed texts
        }
