"""Qwen3-VL: interleaved M-RoPE, DeepStack, time stamps between the frames of a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.types import Sample
from ivcp.models.qwen2vl import QwenFamily, vqa_text


@dataclass(frozen=True, kw_only=True)
class Qwen3VL(QwenFamily):
    """Qwen3-VL of any size (dense).

    Attributes:
        path: Hub id or local folder.
        dtype: "float32", "bfloat16", "float16" or "auto" (as stored).
        attention: "sdpa", "eager" or "flash_attention_2".
        device_map: As in `from_pretrained`; None leaves placement to the trainer.
        min_pixels: Images with fewer pixels are enlarged; None keeps the checkpoint's value.
        max_pixels: Images with more pixels are shrunk; None keeps the checkpoint's value.
    """

    path: str | None = "Qwen/Qwen3-VL-8B-Instruct"

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    architecture: ClassVar[str] = "Qwen3VLForConditionalGeneration"

    def ask(self, sample: Sample) -> str:
        """Source: Qwen2.5-VL's wording, which the maintainers name for boxes in thousandths."""
        if sample.task == "grounding":
            return f"\nLocate {sample.question} and output the bbox coordinates in JSON format."
        return vqa_text(sample)

    def layouts(
        self,
        model: nn.Module,
        rows: Sequence[Tensor],
        positions: Sequence[Tensor] | None,
        inputs: dict[str, Any],
    ) -> list[PromptLayout]:
        """As in the other Qwen-VL families, but each frame of a video has markers of its own."""
        layouts = super().layouts(model, rows, positions, inputs)
        frames = sum(_is_frame(image) for layout in layouts for image in layout.images)
        if not frames:
            return layouts
        counts = inputs["video_grid_thw"][:, 0].tolist()
        repeats, rest = divmod(frames, sum(counts))  # beams repeat rows
        if rest or not repeats or len(layouts) % repeats:
            raise UserError(
                f"The prompts hold {frames} frames, but the videos in the inputs {sum(counts)}: "
                "give one placeholder for each frame, and the whole prompt at once."
            )
        left = iter(counts)
        joined = [_joined(layout, left) for layout in layouts[::repeats]]
        return [layout for layout in joined for _ in range(repeats)]

    def _run_grids(self, kind: str, grids: Tensor) -> list[tuple[int, int]]:
        frames = grids[:, 0] if kind == "video" else torch.ones_like(grids[:, 0])
        return super()._run_grids(kind, grids.repeat_interleave(frames, 0))


def _is_frame(image: ImageLayout) -> bool:
    return image.grids[0].kind == "frame"


def _joined(layout: PromptLayout, counts: Iterator[int]) -> PromptLayout:
    """The layout with frames joined to videos of as many frames as `counts` says."""
    images: list[ImageLayout] = []
    frames: list[Grid] = []
    missing = 0
    for image in layout.images:
        if not _is_frame(image):
            images.append(image)
            continue
        missing = missing or next(counts)
        frames.append(image.grids[0])
        if len(frames) == missing:
            images.append(ImageLayout(tuple(frames)))
            frames, missing = [], 0
    return replace(layout, images=tuple(images))
