"""A stand-in for the package flash-attn: exact attention by SDPA behind its public functions.

It lets the flash path of the library and of the engine run on a CPU. Shapes are those of the real
package: (B, S, H, D), or (T, H, D) for sequences behind each other. A causal mask is aligned to the
last key, as in version 2.1 and later.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__version__ = "2.8.3"
calls: Counter[str] = Counter()
"""How often each function was called."""


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Tensor:
    """Attention of sequences of one length."""
    calls["flash_attn_func"] += 1
    _check(dropout_p, window_size, softcap, alibi_slopes, return_attn_probs)
    return _attention(q, k, v, softmax_scale, causal)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Tensor:
    """Attention of sequences that stand behind each other, each on its own."""
    calls["flash_attn_varlen_func"] += 1
    _check(dropout_p, window_size, softcap, alibi_slopes, return_attn_probs or block_table)
    if int(cu_seqlens_q[-1]) != len(q) or int(cu_seqlens_k[-1]) != len(k):
        raise ValueError("cu_seqlens must end with the number of tokens")
    if len(cu_seqlens_q) != len(cu_seqlens_k):
        raise ValueError("queries and keys must be as many sequences")
    if (
        int(cu_seqlens_q.diff().max()) > max_seqlen_q
        or int(cu_seqlens_k.diff().max()) > max_seqlen_k
    ):
        raise ValueError("a sequence is longer than max_seqlen")
    borders_q, borders_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    return torch.cat(
        [
            _attention(q[a:b][None], k[c:d][None], v[c:d][None], softmax_scale, causal)[0]
            for a, b, c, d in zip(
                borders_q[:-1], borders_q[1:], borders_k[:-1], borders_k[1:], strict=True
            )
        ]
    )


def flash_attn_with_kvcache(*_: Any, **__: Any) -> Tensor:
    """Paged caches; nothing here uses them."""
    raise NotImplementedError


def _check(
    dropout_p: float, window_size: tuple[int, int], softcap: float, alibi: Any, other: Any
) -> None:
    if dropout_p or tuple(window_size) != (-1, -1) or softcap or alibi is not None or other:
        raise NotImplementedError("the stand-in has plain attention only")


def _attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool) -> Tensor:
    """(B, S, H, D) from queries, and keys and values that several heads may share."""
    if q.shape[2] % k.shape[2] or q.shape[-1] != v.shape[-1]:
        raise ValueError("heads must be a multiple of key/value heads, with one width")
    rows, columns = q.shape[1], k.shape[1]
    mask = None
    if causal:
        mask = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)
    q, k, v = (states.transpose(1, 2) for states in (q, k, v))
    out = scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True)
    if mask is not None:  # flash-attn gives zeros where a query sees no key
        out = out.masked_fill(~mask.any(1)[:, None], 0)
    return out.transpose(1, 2)
