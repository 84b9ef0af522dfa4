"""Language models with a fixed window of visual tokens, as the recorded cases use them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GenerationMixin, LlamaConfig, LlamaModel

from ivcp.core.family import ModelAdapter
from ivcp.core.layout import ImageLayout, PromptLayout
from ivcp.core.view import LAYER_SIGNALS
from ivcp.models.decoders import PLAIN
from ivcp.models.deepseekvl2 import DeepSeekVL2
from ivcp.models.hub import HubFamily


@dataclass(frozen=True)
class LlamaWindow(ModelAdapter):
    """A Llama called with embeddings; the same image stands in every sample."""

    image: ImageLayout
    query_offset: int = 0

    model_types = ("llama",)
    needs_ids = False

    def provides(self, config: Any) -> frozenset[str]:
        return PLAIN | LAYER_SIGNALS

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

    rotate = HubFamily.rotate
    query_states = HubFamily.query_states
    stored_states = HubFamily.stored_states


class DeepseekWindow(LlamaWindow):
    """The same with DeepSeek-VL2's language model."""

    cached_states = DeepSeekVL2.cached_states
    query_states = DeepSeekVL2.query_states
    stored_states = DeepSeekVL2.stored_states


def needs_encoded_images(model: Any) -> None:
    """Skip a test in which `generate` repeats or splits prompts with several images.

    Since 5.18 it encodes images first; before, only Qwen-VL repeats them in the right order.
    """
    usual = GenerationMixin._expand_inputs_for_generation
    if type(model)._expand_inputs_for_generation is usual and not hasattr(
        GenerationMixin, "_expand_multimodal_outputs"
    ):
        pytest.skip("generate of this transformers mixes up the images of repeated prompts")


def takes_embeddings(model: Any) -> bool:
    """Whether `generate` takes embeddings instead of ids."""
    return "inputs_embeds" in inspect.signature(model.prepare_inputs_for_generation).parameters


def small_llama(layers: int) -> LlamaModel:
    """A random language model without images."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8, hidden_size=32, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return LlamaModel(config).eval()
