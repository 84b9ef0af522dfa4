"""LLaVA-1.5 in vLLM, whose positions are declared as three equal rows of M-RoPE.

vLLM numbers the positions of RoPE by slot, and no hook changes them; those of M-RoPE are the
model's own. With equal rows the two are the same.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from vllm.config import CompilationMode
from vllm.model_executor.models import llava as family
from vllm.model_executor.models.interfaces import SupportsMRoPE
from vllm.multimodal import MULTIMODAL_REGISTRY

from ivcp.core.errors import UserError
from ivcp.integrations.vllm.model import PrunedVL
from ivcp.integrations.vllm.processing import PruningProcessor

BASE = 256
"""Distances have two digits of this base, since bfloat16 holds no larger whole numbers."""


class Processor(PruningProcessor, family.LlavaMultiModalProcessor):  # type: ignore[misc]
    """The family's processor, which counts the tokens that remain."""

    flat: ClassVar[bool] = True

    def _grid(self, images: Any, number: int, inputs: Any) -> tuple[int, int]:
        vision = self.info.get_hf_config().vision_config
        side = vision.image_size // vision.patch_size
        return side, side


@MULTIMODAL_REGISTRY.register_processor(
    Processor,
    info=family.LlavaProcessingInfo,
    dummy_inputs=family.LlavaDummyInputsBuilder,
)
class PrunedLlava15(PrunedVL, family.LlavaForConditionalGeneration, SupportsMRoPE):  # type: ignore[misc]
    """The family's model, which chooses the tokens that remain."""

    @classmethod
    def check_engine(cls, vllm_config: Any) -> None:
        super().check_engine(vllm_config)
        if vllm_config.compilation_config.mode != CompilationMode.NONE:
            raise UserError(
                "vLLM compiles Llama for a single row of positions, and pruned prompts have three: "
                "start it with enforce_eager (--enforce-eager)."
            )

    def unpruned_positions(self, tokens: list[int], features: list[Any]) -> tuple[Tensor, int]:
        return torch.arange(len(tokens)).expand(3, -1).contiguous(), 0

    @staticmethod
    def encoded(distances: Tensor) -> Tensor:
        flat = distances[0]
        return torch.stack([flat // BASE, flat % BASE, torch.zeros_like(flat)])

    @staticmethod
    def decoded(channels: Tensor) -> Tensor:
        return (BASE * channels[0] + channels[1]).repeat(3, 1)
