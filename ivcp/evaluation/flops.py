"""Floating-point operations of a prefill of the language model: by formula, and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


@dataclass(frozen=True, kw_only=True)
class DecoderSizes:
    """Sizes of a dense decoder with gated MLPs.

    Attributes:
        layers: `L`.
        hidden: `C`.
        intermediate: Width of the MLP.
        heads: `H`.
        key_value_heads: `G`.
        head_dim: `D`.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int

    @classmethod
    def of(cls, decoder: nn.Module) -> DecoderSizes:
        """Sizes of a Hugging Face decoder, from its configuration."""
        config: Any = decoder.config
        return cls(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=config.num_attention_heads,
            key_value_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None)
            or config.hidden_size // config.num_attention_heads,
        )

    def cache_bytes(self, tokens: int, element_size: int) -> int:
        """Bytes of keys and values of `tokens` tokens in every layer."""
        return 2 * self.layers * self.key_value_heads * self.head_dim * element_size * tokens


def prefill_flops(layer_tokens: Sequence[int], sizes: DecoderSizes) -> int:
    """Operations of the decoder layers, two for each multiply-add.

    Counted are the projections to queries, keys, values and output, the gated MLP, and both
    attention products over full (not causal) lengths, as PyTorch's counter does. Not counted are
    norms, rotation, softmax and the language-model head.

    Args:
        layer_tokens: (L,) tokens that each layer processes.
        sizes: Sizes of the decoder.

    >>> sizes = DecoderSizes(
    ...     layers=1, hidden=2, intermediate=3, heads=2, key_value_heads=1, head_dim=1
    ... )
    >>> prefill_flops([5], sizes)
    500
    """
    width, narrow = sizes.heads * sizes.head_dim, sizes.key_value_heads * sizes.head_dim
    linear = 2 * sizes.hidden * (2 * width + 2 * narrow + 3 * sizes.intermediate)
    return sum(tokens * linear + 4 * width * tokens**2 for tokens in layer_tokens)


def count_flops(module: nn.Module, run: Callable[[], Any]) -> int:
    """Operations that PyTorch dispatches inside the first call of `module` during `run`.

    FlashAttention's own kernels are not seen by PyTorch's counter and are missing from the count.
    """
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    counter = FlopCounterMode(display=False, custom_mapping={kernel: attention})
    calls: list[bool] = []

    def enter(*_: Any) -> None:
        calls.append(True)
        if len(calls) == 1:
            counter.__enter__()  # type: ignore[no-untyped-call]

    def leave(*_: Any) -> None:
        if len(calls) == 1:
            counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    handles = [
        module.register_forward_pre_hook(enter),
        module.register_forward_hook(leave, always_call=True),
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return int(counter.get_total_flops())
