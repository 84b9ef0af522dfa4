"""Language models with a fixed window of visual tokens, as the recorded cases use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ivcp.core.family import Anatomy
from ivcp.core.layout import ImageLayout, PromptLayout
from ivcp.models.deepseekvl2 import DeepSeekVL2


@dataclass(frozen=True)
class LlamaWindow(Anatomy):
    """A Llama called with embeddings; the same image stands in every sample."""

    image: ImageLayout
    query_offset: int = 0

    model_types = ("llama",)
    needs_ids = False
    provides = frozenset({"positions", "embeddings", "hidden", "values", "keys", "attention"})

    def entry(self, model: nn.Module) -> nn.Module:
        return getattr(model, "model", model)

    def decoder(self, model: nn.Module) -> nn.Module:
        return getattr(model, "model", model)

    def vision(self, model: nn.Module) -> nn.Module:
        return model

    def layouts(
        self,
        model: nn.Module,
        rows: Sequence[Tensor],
        positions: Sequence[Tensor] | None,
        inputs: dict[str, Any],
    ) -> list[PromptLayout]:
        return [
            PromptLayout(len(row), (self.image,), query_offset=self.query_offset) for row in rows
        ]

    def query_states(self, layer: nn.Module, hidden: Tensor, rotary: Any) -> Tensor:
        query = layer.self_attn.q_proj(layer.input_layernorm(hidden))
        query = query.unflatten(-1, (-1, layer.self_attn.head_dim)).transpose(1, 2)
        return apply_rotary_pos_emb(query, query[:, :1], *rotary)[0]


class DeepseekWindow(LlamaWindow):
    """The same with DeepSeek-VL2's language model."""

    cached_states = DeepSeekVL2.cached_states
    query_states = DeepSeekVL2.query_states
