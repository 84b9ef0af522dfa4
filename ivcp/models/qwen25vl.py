"""Qwen2.5-VL: M-RoPE, absolute boxes in pixels of the resized image; also the packaged model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from torch import nn

from ivcp.core.family import BoxFrame
from ivcp.core.tower import VisionTower
from ivcp.models.qwen2vl import QwenFamily
from ivcp.models.towers_qwen import Qwen25Tower

PACKAGED = Path(__file__).parent / "tiny"


@dataclass(frozen=True, kw_only=True)
class Qwen25VL(QwenFamily):
    """Qwen2.5-VL of any size; `path` None loads the small model that ships with the package."""

    path: str | None = "Qwen/Qwen2.5-VL-7B-Instruct"

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    decoder_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl_text",)
    architecture: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"

    @cached_property
    def _source(self) -> str:
        return str(PACKAGED) if self.path is None else super()._source

    def tower(self, model: nn.Module) -> VisionTower:
        return Qwen25Tower(self.entry(model))

    def frame(self, width: int, height: int, size: tuple[int, int]) -> BoxFrame:
        return BoxFrame(width, height, *size)
