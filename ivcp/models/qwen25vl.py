"""Qwen2.5-VL: M-RoPE, absolute boxes in pixels of the resized image; also the packaged model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ivcp.core.family import Frame
from ivcp.core.types import Sample
from ivcp.models.qwen2vl import QwenFamily, vqa_text

PACKAGED = Path(__file__).parent / "tiny"


@dataclass(frozen=True, kw_only=True)
class Qwen25VL(QwenFamily):
    """Qwen2.5-VL of any size.

    Attributes:
        path: Hub id or local folder; None loads the small model that ships with the package.
        dtype: "float32", "bfloat16", "float16" or "auto" (as stored).
        attention: "sdpa", "eager" or "flash_attention_2".
        device_map: As in `from_pretrained`; None leaves placement to the trainer.
        min_pixels: Images with fewer pixels are enlarged; None keeps the checkpoint's value.
        max_pixels: Images with more pixels are shrunk; None keeps the checkpoint's value.
    """

    path: str | None = "Qwen/Qwen2.5-VL-7B-Instruct"

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    architecture: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"

    @cached_property
    def _source(self) -> str:
        return str(PACKAGED) if self.path is None else super()._source

    def ask(self, sample: Sample) -> str:
        """Source: prompts of the IVC-Prune release."""
        if sample.task == "grounding":
            return f"\nLocate {sample.question} and output the bbox coordinates in JSON format."
        return vqa_text(sample)

    def frame(self, width: int, height: int, size: tuple[int, int]) -> Frame:
        return Frame(width, height, *size)
