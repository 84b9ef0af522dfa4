"""The first layers, run once on a whole prompt before vLLM schedules what is left of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from vllm.distributed import get_tensor_model_parallel_world_size

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout, PromptLayout
from ivcp.core.transfer import to_device


class PlainAttention(nn.Module):
    """Causal attention of one prompt without a cache, in place of vLLM's; keeps what it reads."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads, self.groups = attention.num_heads, attention.num_kv_heads
        self.size, self.scale = attention.head_size, attention.impl.scale
        self.keys = self.values = torch.empty(0)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(S, H * D) attention, from (S, H * D) queries and (S, G * D) keys and values."""
        rows = len(query)
        queries = query.view(1, rows, self.heads, self.size).transpose(1, 2)
        keys, values = (
            states.view(1, rows, self.groups, self.size).transpose(1, 2) for states in (key, value)
        )
        self.keys, self.values = keys[0], values[0]  # (G, S, D)
        mixed = scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=self.scale, enable_gqa=True
        )
        return mixed.transpose(1, 2).reshape(rows, -1)


class FirstPass:
    """The first `count` layers of a decoder on one prompt.

    Args:
        decoder: vLLM's language model without its head.
        count: Number of layers, at least 1.
    """

    def __init__(self, decoder: Any, count: int) -> None:
        if get_tensor_model_parallel_world_size() > 1:
            raise UserError("two_pass is not right with tensor parallelism: use one GPU an engine.")
        self.layers = list(decoder.layers)[:count]

    def signals(
        self,
        embeds: Tensor,
        states: Tensor,
        layout: PromptLayout,
        image: ImageLayout,
        positions: Tensor,
        width: int,
    ) -> dict[str, Any]:
        """Values and keys of the last of the layers, as `View` has them.

        Args:
            embeds: (S, C) embeddings of the prompt's ids, those at the image to be replaced.
            states: (V, C') embeddings of the image, with the features of DeepStack behind.
            layout: The prompt.
            image: The image.
            positions: (3, S) position ids.
            width: `C`.
        """
        device = embeds.device
        tokens = to_device(image.tokens, device)
        queries = to_device(layout.text_queries(image), device)
        rest = torch.ones(layout.length, dtype=torch.bool)
        rest[image.tokens] = False
        others = to_device(rest.nonzero()[:, 0], device)
        hidden = embeds.index_copy(0, tokens, states[:, :width].to(embeds))
        features = states[:, width:].to(embeds)  # of DeepStack, for the early layers
        deep = torch.split(features, width, 1) if features.numel() else ()
        residual: Tensor | None = None
        with plain_attention(self.layers) as attentions:
            for index, layer in enumerate(self.layers):
                hidden, residual = layer(to_device(positions, device), hidden, residual)
                if index < len(deep):
                    hidden = hidden.index_add(0, tokens, deep[index])
        last = attentions[-1]
        return {
            "values": (last.values[:, queries], last.values[:, tokens]),
            "keys": (last.keys[:, queries], last.keys[:, tokens]),
            "other_values": last.values[:, others],
        }


@contextmanager
def plain_attention(layers: list[Any]) -> Iterator[list[PlainAttention]]:
    """Layers whose attention needs none of vLLM's cache inside the block."""
    before = [layer.self_attn.attn for layer in layers]
    plain = [PlainAttention(attention) for attention in before]
    try:
        for layer, attention in zip(layers, plain, strict=True):
            layer.self_attn.attn = attention
        yield plain
    finally:
        for layer, attention in zip(layers, before, strict=True):
            layer.self_attn.attn = attention
