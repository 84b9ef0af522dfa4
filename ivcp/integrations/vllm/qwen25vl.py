"""Qwen2.5-VL in vLLM."""

from __future__ import annotations

from typing import Any, ClassVar

from vllm.model_executor.models import qwen2_5_vl as family
from vllm.multimodal import MULTIMODAL_REGISTRY

from ivcp.integrations.vllm.model import PrunedVL
from ivcp.integrations.vllm.processing import PruningProcessor
from ivcp.integrations.vllm.tower import CapturedQwen25


class Processor(PruningProcessor, family.Qwen2_5_VLMultiModalProcessor):  # type: ignore[misc]
    """The family's processor, which counts the tokens that remain."""


@MULTIMODAL_REGISTRY.register_processor(
    Processor,
    info=family.Qwen2_5_VLProcessingInfo,
    dummy_inputs=family.Qwen2_5_VLDummyInputsBuilder,
)
class PrunedQwen25VL(PrunedVL, family.Qwen2_5_VLForConditionalGeneration):  # type: ignore[misc]
    """The family's model, which chooses the tokens that remain."""

    tower_kind: ClassVar[Any] = CapturedQwen25
