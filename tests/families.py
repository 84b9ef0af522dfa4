"""A plain Llama with a fixed window of visual tokens, as the recorded baselines use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ivcp.core.family import Anatomy
from ivcp.core.layout import ImageSpan, PromptLayout


@dataclass(frozen=True)
class LlamaWindow(Anatomy):
    """`LlamaModel` called with embeddings; the image stands at `start` in every sample."""

    start: int
    rows: int
    columns: int

    model_types = ("llama",)
    provides = frozenset({"positions", "embeddings", "hidden", "values", "keys", "attention"})

    def entry(self, model: nn.Module) -> nn.Module:
        return model

    def decoder(self, model: nn.Module) -> nn.Module:
        return model

    def vision(self, model: nn.Module) -> nn.Module:
        return model

    def layouts(
        self,
        model: nn.Module,
        rows: Sequence[Tensor],
        positions: Sequence[Tensor] | None,
        inputs: dict[str, Any],
    ) -> list[PromptLayout]:
        span = ImageSpan(self.start, self.rows, self.columns)
        return [PromptLayout(len(row), (span,), query_offset=0) for row in rows]

    def query_states(self, layer: nn.Module, hidden: Tensor, rotary: Any) -> Tensor:
        query = layer.self_attn.q_proj(layer.input_layernorm(hidden))
        query = query.unflatten(-1, (-1, layer.self_attn.head_dim)).transpose(1, 2)
        return apply_rotary_pos_emb(query, query[:, :1], *rotary)[0]
