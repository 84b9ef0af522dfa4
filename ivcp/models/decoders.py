"""Queries, keys and values of decoder layers, computed as the language models compute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.core.view import LAYER_SIGNALS, Signal

PLAIN: frozenset[Signal] = frozenset({"positions", "embeddings", "text_embeddings", "hidden"})
READABLE = ("llama", "mistral", "qwen2", "qwen3", "phi", "stablelm", "olmo2")
"""Types of language models that several families are built on and whose layers `projected` can
read; the tests compare each with the attention weights that the model returns."""


def readable(config: Any, own: Sequence[str] = ()) -> frozenset[Signal]:
    """Signals of a model's decoder.

    Args:
        config: Configuration of the whole model.
        own: Further types of language models that `projected` can read, those of one family.
    """
    text = getattr(config, "text_config", config)
    return PLAIN | LAYER_SIGNALS if text.model_type in (*READABLE, *own) else PLAIN


def projected(layer: nn.Module, hidden: Tensor, name: str) -> Tensor:
    """(B, heads, R, D) projections of a layer's input, norms applied, not yet rotated.

    Args:
        layer: A decoder layer of a type that `readable` knows.
        hidden: (B, R, C) rows of its input.
        name: "q", "k" or "v".
    """
    attention: Any = layer.self_attn
    norm: Any = getattr(layer, "input_layernorm", None)  # OLMo 2 has its norm behind attention
    states = hidden if norm is None else norm(hidden)
    states = getattr(attention, f"{name}_proj")(states)
    qk_norm = getattr(attention, f"{name}_norm", None)
    if qk_norm is not None and qk_norm.weight.shape[-1] == states.shape[-1]:
        states, qk_norm = qk_norm(states), None  # OLMo 2: one norm over all heads
    states = states.unflatten(-1, (-1, attention.head_dim))  # (B, R, heads, D)
    if qk_norm is not None:
        states = qk_norm(states)
    states = states.transpose(1, 2)
    by_head = getattr(attention, f"{name}_layernorm", None)  # Phi, StableLM
    normed: Tensor = states if by_head is None else by_head(states)
    return normed


def rotated(layer: nn.Module, states: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """(B, heads, R, D) rotated states; the last dimensions stay as they are if angles are fewer.

    Args:
        layer: The decoder layer.
        states: Its queries or keys.
        rotary: cos and sin, (B, R, D) each; or (A, B, R, D), of which each of Qwen's sections of
            channels takes one position axis. Until transformers 5.16, the layer does that.
    """
    cos, sin = (angles[..., None, :, :] for angles in rotary)
    if cos.dim() == 5:  # (A, B, 1, R, D)
        attention: Any = layer.self_attn
        sections = attention.config.rope_parameters["mrope_section"] * 2
        cos, sin = (_one_axis(angles, sections) for angles in (cos, sin))
    turned, rest = torch.split(states, [cos.shape[-1], states.shape[-1] - cos.shape[-1]], -1)
    half = turned.shape[-1] // 2
    swapped = torch.cat([-turned[..., half:], turned[..., :half]], -1)
    return torch.cat([(turned * cos + swapped * sin).to(states.dtype), rest], -1)


def rotated_pairs(layer: nn.Module, states: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """As `rotated`, for models that rotate each even dimension with the odd one behind it.

    Args:
        layer: The decoder layer.
        states: (B, heads, R, D) its queries or keys.
        rotary: cos and sin, (B, R, D') each, each angle twice in a row; or (A, B, R, D') with the
            angles twice behind each other, which layers put in order until transformers 5.16.
    """
    cos, sin = (angles[..., None, :, :] for angles in rotary)
    if cos.dim() == 5:  # (A, B, 1, R, D')
        attention: Any = layer.self_attn
        sections = attention.config.rope_parameters["mrope_section"] * 2
        half = cos.shape[-1] // 2
        cos, sin = (
            _one_axis(angles, sections)[..., :half].repeat_interleave(2, -1)
            for angles in (cos, sin)
        )
    turned, rest = torch.split(states, [cos.shape[-1], states.shape[-1] - cos.shape[-1]], -1)
    swapped = torch.stack([-turned[..., 1::2], turned[..., 0::2]], -1).flatten(-2)
    return torch.cat([(turned * cos + swapped * sin).to(states.dtype), rest], -1)


def _one_axis(angles: Tensor, sections: list[int]) -> Tensor:
    """(..., D) of (A, ..., D) angles: axis `i % A` in the channels of section `i`."""
    parts = torch.split(angles, sections, -1)
    return torch.cat([part[i % len(part)] for i, part in enumerate(parts)], -1)


def rope_frequencies(decoder: nn.Module, layer_type: str | None = None) -> Tensor:
    """(D / 2,) float32 rotary frequencies from the configuration.

    A model that was cast to half precision has rounded its own.

    Args:
        decoder: The language model.
        layer_type: The library's kind of layer, for models whose kinds have frequencies of their
            own.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rotary: Any = decoder.rotary_emb
    parameters, of_kind = rotary.config.rope_parameters, {}
    if layer_type is not None:
        parameters, of_kind = parameters[layer_type], {"layer_type": layer_type}
    kind = parameters["rope_type"]
    default = getattr(rotary, "compute_default_rope_parameters", None)
    init = default if kind == "default" and default else ROPE_INIT_FUNCTIONS[kind]
    with torch.device("cpu"):
        frequencies, _ = init(rotary.config, **of_kind)
    return frequencies.float()
