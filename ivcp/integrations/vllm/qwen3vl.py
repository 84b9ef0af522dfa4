"""Qwen3-VL in vLLM."""

from __future__ import annotations

from vllm.model_executor.models import qwen3_vl as family
from vllm.multimodal import MULTIMODAL_REGISTRY

from ivcp.integrations.vllm.model import PrunedVL
from ivcp.integrations.vllm.processing import PruningProcessor


class Processor(PruningProcessor, family.Qwen3VLMultiModalProcessor):  # type: ignore[misc]
    """The family's processor, which counts the tokens that remain."""


@MULTIMODAL_REGISTRY.register_processor(
    Processor,
    info=family.Qwen3VLProcessingInfo,
    dummy_inputs=family.Qwen3VLDummyInputsBuilder,
)
class PrunedQwen3VL(PrunedVL, family.Qwen3VLForConditionalGeneration):  # type: ignore[misc]
    """The family's model, which chooses the tokens that remain."""
