"""What hardware allows at best: time in proportion to operations, or to bytes that are read."""

from __future__ import annotations

from typing import Any

from torch import nn


def step_bytes(decoder: nn.Module, head: nn.Module | None, batch_size: int) -> float:
    """Bytes of weights that a decoding step of a batch reads at least.

    Of routed experts, only those are read that a sample of the batch is sent to; counted are as
    many as if no two samples shared one.

    Args:
        decoder: The language model.
        head: What makes logits of its output, if that is a module of its own.
        batch_size: Samples of the batch.
    """
    config: Any = decoder.config
    layers: Any = decoder.layers
    total = 0.0 if head is None else float(sum(weight.nbytes for weight in head.parameters()))
    for weight in layers.parameters():
        share = 1.0
        if weight.ndim == 3:  # (E, N, M) stacked experts
            share = min(1.0, batch_size * config.num_experts_per_tok / len(weight))
        total += share * weight.nbytes
    return total


def decode_limit(weights: float, unpruned_cache: float, pruned_cache: float) -> float:
    """Bytes that a decoding step reads with a pruned cache, over those with the complete one.

    >>> decode_limit(90, 10, 5)
    0.95
    """
    return (weights + pruned_cache) / (weights + unpruned_cache)
