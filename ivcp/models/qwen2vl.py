"""Qwen2-VL: M-RoPE, boxes in thousandths of the image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ivcp.core.family import BoxFrame
from ivcp.core.types import Box, Sample
from ivcp.models.hub import BRACKETS, NUMBER, four_numbers
from ivcp.models.processor import Processor
from ivcp.models.qwen_family import QwenFamily

PARENTHESES = re.compile(rf"\({NUMBER},{NUMBER}\)\s*,\s*\({NUMBER},{NUMBER}\)")


@dataclass(frozen=True, kw_only=True)
class Qwen2VL(QwenFamily):
    """Qwen2-VL of any size."""

    path: str | None = "Qwen/Qwen2-VL-7B-Instruct"

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    decoder_types: ClassVar[tuple[str, ...]] = ("qwen2_vl_text",)
    architecture: ClassVar[str] = "Qwen2VLForConditionalGeneration"
    times_as_positions: ClassVar[bool] = True

    def format_question(self, sample: Sample) -> str:
        """Source: the prompts of the IVC-Prune release; the expression is not shortened."""
        if sample.task == "grounding":
            return f"\n<|object_ref_start|>Detect {sample.question.lower()}<|object_ref_end|>"
        return super().format_question(sample)

    def frame(self, width: int, height: int, size: tuple[int, int]) -> BoxFrame:
        return BoxFrame(1000, 1000, *size)

    def decode(self, processor: Processor, tokens: Tensor) -> list[str]:
        """Box markers are special tokens here, so only padding and ends of turns are removed."""
        texts: list[str] = processor.tokenizer.batch_decode(tokens, skip_special_tokens=False)
        return [re.sub(r"<\|(endoftext|im_end)\|>", "", text) for text in texts]

    def parse_box(self, text: str) -> Box | None:
        """The first `(x1,y1),(x2,y2)`, else the first bracketed list of four numbers."""
        return four_numbers(PARENTHESES, text) or four_numbers(BRACKETS, text)
