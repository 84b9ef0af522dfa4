"""Attention masks over a pruned cache, in the form that each attention backend takes."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_mask(
    backend: str, queries: int, valid: Tensor | None, stored: int, like: Tensor
) -> Tensor | None:
    """Causal mask of the last `queries` tokens over `stored` cache slots.

    Args:
        backend: "sdpa", "eager" or "flash_attention_2".
        queries: Number of new tokens; they are the last of the stored ones.
        valid: (B, w) False at padding among the first `w` slots, None if every slot counts.
        stored: Slots after the new tokens were added.
        like: Hidden states; give dtype and device.

    Returns:
        None where the backend's own causal rule is right; (B, stored) for flash attention; else
        (B or 1, 1, queries, stored), boolean for SDPA and additive for eager attention. A row that
        would see nothing sees itself, so that no padding row turns into NaN.
    """
    valid = None if valid is None else valid.to(like.device)
    if valid is not None and valid.shape[1] < stored:
        later = valid.new_ones(valid.shape[0], stored - valid.shape[1])
        valid = torch.cat([valid, later], 1)  # (B, stored)
    if backend.startswith("flash_attention"):
        return valid
    fresh = queries == stored or queries == 1
    if backend == "sdpa" and valid is None and fresh:
        return None
    rows = torch.arange(stored - queries, stored, device=like.device)[:, None]
    columns = torch.arange(stored, device=like.device)
    seen = (columns <= rows)[None, None]  # (1, 1, queries, stored)
    if valid is not None:
        seen = (seen & valid[:, None, None, :]) | (columns == rows)
    if backend == "sdpa":
        return seen
    lowest = torch.finfo(like.dtype).min
    return torch.zeros_like(seen, dtype=like.dtype).masked_fill(~seen, lowest)
