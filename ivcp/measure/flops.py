"""Floating-point operations of a prefill of the language model: by formula, and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Shape: TypeAlias = tuple[int, int, int, int]

CHUNK = 64
"""Tokens that the gated delta rule of linear attention takes at once; the last ones are padded."""
STATE_BYTES = 4
"""Bytes of a number of its state, which is float32 whatever the model's dtype."""

KERNELS = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
)
"""Kernels of `scaled_dot_product_attention`."""


@dataclass(frozen=True, kw_only=True)
class DecoderSizes:
    """What a token costs in a decoder.

    Attributes:
        linear: For each layer, weights that a token is multiplied with; of routed experts, those
            that it is sent to.
        attention: For each layer, width of queries and values over all heads.
        cached: For each layer, numbers that the cache keeps of a token.
        scanned: For each layer, multiply-adds of the gated delta rule for a token of a full chunk;
            empty if no layer has linear attention.
        states: For each layer, numbers of the state of its recurrence and of that of its
            convolution, which do not grow with the prompt; likewise.
    """

    linear: tuple[int, ...]
    attention: tuple[int, ...]
    cached: tuple[int, ...]
    scanned: tuple[int, ...] = ()
    states: tuple[tuple[int, int], ...] = ()

    @property
    def layers(self) -> int:
        """Number of decoder layers, `L`."""
        return len(self.linear)

    @classmethod
    def of(cls, decoder: nn.Module) -> DecoderSizes:
        """Sizes of a Hugging Face decoder.

        It is dense or has routed experts, with or without MLA; some of its layers may have linear
        attention by the gated delta rule.
        """
        layers: list[Any] = list(decoder.layers)  # type: ignore[arg-type]
        config: Any = decoder.config
        heads = config.num_attention_heads
        if rank := getattr(config, "kv_lora_rank", None):  # latent attention (MLA)
            rotary = config.qk_rope_head_dim
            attention = heads * (config.qk_nope_head_dim + rotary + config.v_head_dim)
            cached = rank + rotary
        else:
            dim = getattr(config, "head_dim", None) or config.hidden_size // heads
            attention, cached = 2 * heads * dim, 2 * config.num_key_value_heads * dim
        recurrent = [getattr(layer, "linear_attn", None) for layer in layers]
        hybrid = any(module is not None for module in recurrent)
        return cls(
            linear=tuple(_active_weights(layer, config) for layer in layers),
            attention=tuple(attention if module is None else 0 for module in recurrent),
            cached=tuple(cached if module is None else 0 for module in recurrent),
            scanned=tuple(map(_scanned, recurrent)) if hybrid else (),
            states=tuple(map(_states, recurrent)) if hybrid else (),
        )

    def cache_bytes(self, tokens: int, element_size: int) -> int:
        """Bytes of what the cache keeps in all layers of one row of `tokens` tokens."""
        states = sum(STATE_BYTES * scan + element_size * conv for scan, conv in self.states)
        return sum(self.cached) * element_size * tokens + states


def _scanned(module: Any) -> int:
    """Multiply-adds of a token in a chunk of the gated delta rule, as the library computes it.

    Products of keys, and of queries and keys, within the chunk; then three with the state, and one
    of the weights with the values. Solving the chunk's triangular system is left out, as PyTorch's
    counter does.
    """
    if module is None:
        return 0
    key, value = module.head_k_dim, module.head_v_dim
    return int(module.num_v_heads * (2 * CHUNK * key + 3 * key * value + CHUNK * value))


def _states(module: Any) -> tuple[int, int]:
    if module is None:
        return 0, 0
    recurrent = module.num_v_heads * module.head_k_dim * module.head_v_dim
    return int(recurrent), int(module.conv_dim * module.conv_kernel_size)


def _active_weights(layer: nn.Module, config: Any) -> int:
    """Weights of a layer's matrices and convolution by channel.

    Of stacked experts (E, N, M), those that a token is sent to.
    """
    active = 0
    for name, weight in layer.named_parameters():
        if weight.ndim == 2 or "conv1d" in name:
            active += weight.numel()
        elif weight.ndim == 3:
            active += weight.numel() * config.num_experts_per_tok // len(weight)
    return active


def prefill_flops(
    layer_tokens: Sequence[int], sizes: DecoderSizes, first_pass: Sequence[int] = ()
) -> int:
    """Operations of the decoder layers, two for each multiply-add.

    Counted are all matrices (projections, MLP, router and active experts) and both attention
    products over full (not causal) lengths, as PyTorch's counter does; of linear attention, the
    convolution and the products of the gated delta rule, in chunks. Not counted are norms,
    rotation, softmax and the language-model head.

    Args:
        layer_tokens: (L,) tokens that each layer processes.
        sizes: Sizes of the decoder.
        first_pass: Tokens that each of the first layers processes in a pass before, to choose.

    >>> sizes = DecoderSizes(linear=(30, 30), attention=(4, 4), cached=(2, 2))
    >>> prefill_flops([5, 5], sizes), prefill_flops([5, 5], sizes, first_pass=[5])
    (1000, 1500)
    """
    scanned = sizes.scanned or (0,) * sizes.layers
    of_layers = tuple(zip(sizes.linear, sizes.attention, scanned, strict=True))
    both = [
        *zip(layer_tokens, of_layers, strict=True),
        *zip(first_pass, of_layers[: len(first_pass)], strict=True),
    ]
    return sum(
        2 * tokens * linear + 2 * attention * tokens**2 + 2 * scan * CHUNK * ceil(tokens / CHUNK)
        for tokens, (linear, attention, scan) in both
    )


def attention_flops(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Operations of one attention; groups of query heads may share keys and values.

    Written out, because the counter of PyTorch 2.11 refuses shared keys, and that of later versions
    does not know the kernel for CPUs.

    Args:
        query: Shape (B, H, N, D).
        key: Shape (B, G, M, D).
        value: Shape (B, G, M, D').

    >>> attention_flops((1, 4, 5, 8), (1, 2, 7, 8), (1, 2, 7, 16))
    6720
    """
    batch, heads, rows, dim = query
    return 2 * batch * heads * rows * key[2] * (dim + value[3])


def count_flops(module: nn.Module, run: Callable[[], Any]) -> int:
    """Operations that PyTorch dispatches inside the first call of `module` during `run`.

    FlashAttention's own kernels are not seen by PyTorch's counter and are missing from the count.
    """
    kernels = dict.fromkeys((getattr(torch.ops.aten, name) for name in KERNELS), attention_flops)
    counter = FlopCounterMode(display=False, custom_mapping=kernels)
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
