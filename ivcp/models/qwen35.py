"""Qwen3.5: three of four decoder layers have linear attention, the others gated full attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ivcp.core.layer_kinds import LayerKind
from ivcp.models.decoders import projected
from ivcp.models.qwen3vl import Qwen3VL


@dataclass(frozen=True, kw_only=True)
class Qwen35(Qwen3VL):
    """Qwen3.5 of any size (dense), asked to answer without thinking."""

    path: str | None = "Qwen/Qwen3.5-9B"

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_5",)
    decoder_types: ClassVar[tuple[str, ...]] = ("qwen3_5_text",)
    architecture: ClassVar[str] = "Qwen3_5ForConditionalGeneration"
    supported_kinds: ClassVar[frozenset[LayerKind]] = frozenset({"full", "linear"})

    def template_settings(self) -> dict[str, Any]:
        return {"enable_thinking": False}

    def query_states(self, layer: nn.Module, hidden: Tensor, rotary: Any) -> Tensor:
        """As in other families; behind each head's query, the projection holds the head's gate."""
        return self.rotate(layer, projected(layer, hidden, "q")[:, ::2], rotary)
