"""Attention masks over a pruned cache, in the form that each attention backend takes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def attention_mask(
    backend: str,
    queries: int,
    valid: Tensor | None,
    stored: int,
    like: Tensor,
    blocks: Tensor | None = None,
) -> Tensor | None:
    """Causal mask of the last `queries` tokens over `stored` cache slots.

    Args:
        backend: "sdpa", "eager" or "flash_attention_2".
        queries: Number of new tokens, which are in the last slots.
        valid: (B, w) False at padding among the first `w` slots, None if all slots hold tokens.
        stored: Number of slots, new tokens included.
        like: Hidden states with the dtype and device of the mask.
        blocks: (B, queries) number of the image of each new token, -1 for text; tokens of an image
            attend to each other in both directions. None if they do not.

    Returns:
        None where the backend's causal rule is right; (B, stored) for flash attention; otherwise
        (B or 1, 1, queries, stored), boolean for SDPA and additive for eager attention.
    """
    valid = None if valid is None else valid.to(like.device)
    if valid is not None and valid.shape[1] < stored:
        later = valid.new_ones(valid.shape[0], stored - valid.shape[1])
        valid = torch.cat([valid, later], 1)  # (B, stored)
    if backend.startswith("flash_attention"):
        return valid
    # the library's causal rule assumes either no earlier tokens or a single new one
    default_rule = queries == stored or queries == 1
    if backend == "sdpa" and valid is None and default_rule and blocks is None:
        return None
    rows = torch.arange(stored - queries, stored, device=like.device)[:, None]
    columns = torch.arange(stored, device=like.device)
    visible = (columns <= rows)[None, None]  # (1, 1, queries, stored)
    if blocks is not None:
        blocks = pad(blocks.to(like.device), (stored - queries, 0), value=-1)  # (B, stored)
        of_query = blocks[:, None, -queries:, None]
        visible = visible | ((of_query == blocks[:, None, None]) & (of_query >= 0))
    if valid is not None:
        # padding attends to itself: a softmax over no token at all would be NaN
        visible = (visible & valid[:, None, None, :]) | (columns == rows)
    if backend == "sdpa":
        return visible
    lowest = torch.finfo(like.dtype).min
    return torch.zeros_like(visible, dtype=like.dtype).masked_fill(~visible, lowest)
