"""Qwen2.5-VL: M-RoPE, absolute boxes in pixels of the resized image; also the packaged model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ivcp.core.family import BoxFrame, Inputs
from ivcp.core.tower import VisionTower
from ivcp.core.video import Clip
from ivcp.models.processor import Processor
from ivcp.models.qwen_family import QwenFamily
from ivcp.models.towers_qwen import Qwen25Tower
from ivcp.models.video_frames import PAIR

PACKAGED = Path(__file__).parent / "tiny"


@dataclass(frozen=True, kw_only=True)
class Qwen25VL(QwenFamily):
    """Qwen2.5-VL of any size; `path` None loads the small model that ships with the package."""

    path: str | None = "Qwen/Qwen2.5-VL-7B-Instruct"

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    decoder_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl_text",)
    architecture: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"
    packaged: ClassVar[Path | None] = PACKAGED
    times_as_positions: ClassVar[bool] = True

    def tower(self, model: nn.Module) -> VisionTower:
        return Qwen25Tower(self.entry(model))

    def video_times(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        """Seconds of a frame pair, by which the rotary positions of a video advance."""
        seconds = [PAIR * clip.duration / len(clip.frames) for clip in clips]
        return {"second_per_grid_ts": torch.tensor(seconds)}

    def video_steps(self, processor: Processor, inputs: Inputs) -> Sequence[float]:
        seconds: Tensor = inputs["second_per_grid_ts"]
        # in float32, as the library multiplies
        steps: list[float] = (processor.config.vision_config.tokens_per_second * seconds).tolist()
        return steps

    def frame(self, width: int, height: int, size: tuple[int, int]) -> BoxFrame:
        return BoxFrame(width, height, *size)
