"""Forward passes after the prefill: decoding, and new text on a pruned cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ivcp.engine.cache import PrunedLayer, extend_valid
from ivcp.engine.masks import attention_mask


def follow_cache(
    index: int,
    hidden: Tensor,
    kwargs: dict[str, Any],
    backend: str,
    chunk_valid: Tensor | None,
    masks: dict[Any, Tensor | None],
    decoder: nn.Module,
) -> dict[str, Any] | None:
    """Keyword arguments for a layer whose cache is pruned; None if it is not.

    The library derives masks from the cache of the first layer. A pruned layer stores fewer tokens
    than the text counts, possibly fewer than other layers and with gaps between rows, so its mask
    is made here.

    Args:
        index: Index of the decoder layer.
        hidden: (B, N, C) states of the new tokens.
        kwargs: The layer's keyword arguments.
        backend: Attention backend.
        chunk_valid: (B, N) False at padding among the new tokens, or None.
        masks: Masks made in this forward pass, shared by layers with equal caches.
        decoder: The language model; gives rotary embeddings for renumbered caches.
    """
    cache = kwargs.get("past_key_values")
    if cache is None or index >= len(cache.layers):
        return None
    layer = cache.layers[index]
    if not isinstance(layer, PrunedLayer):
        return None
    if chunk_valid is not None:
        extend_valid(layer, layer.stored, len(hidden), chunk_valid.to(hidden.device))
    new = hidden.shape[1]
    stored = layer.stored + new
    key = (stored, id(layer.valid), hidden.device)
    if key not in masks:
        masks[key] = attention_mask(backend, new, layer.valid, stored, hidden)
    changed = {**kwargs, "attention_mask": masks[key], "position_ids": None}
    if layer.renumbered:
        pads: Tensor | int = 0
        if layer.valid is not None:
            pads = (~layer.valid).sum(1, keepdim=True).to(hidden.device)
        ids = torch.arange(layer.stored, stored, device=hidden.device)[None] - pads
        axes = getattr(decoder.rotary_emb, "mrope_section", None)
        if axes is not None:
            ids = ids.expand(len(axes), len(hidden), -1)
        changed["position_embeddings"] = decoder.rotary_emb(hidden, ids)  # type: ignore[operator]
    return changed
