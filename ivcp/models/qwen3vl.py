"""Qwen3-VL: interleaved M-RoPE, DeepStack, time stamps between the frames of a video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame, Inputs, Rows
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.video import Clip
from ivcp.models.placeholders import repeats
from ivcp.models.qwen_family import QwenFamily
from ivcp.models.qwen_layouts import is_frame
from ivcp.models.video_frames import PAIR


@dataclass(frozen=True, kw_only=True)
class Qwen3VL(QwenFamily):
    """Qwen3-VL of any size (dense)."""

    path: str | None = "Qwen/Qwen3-VL-8B-Instruct"

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl",)
    decoder_types: ClassVar[tuple[str, ...]] = ("qwen3_vl_text",)
    architecture: ClassVar[str] = "Qwen3VLForConditionalGeneration"
    video_token: ClassVar[str] = "<|vision_start|><|video_pad|><|vision_end|>"

    def frame(self, width: int, height: int, size: tuple[int, int]) -> BoxFrame:
        return BoxFrame(1000, 1000, *size)

    @property
    def placeholders(self) -> tuple[str, ...]:
        return self.image_token, "<|video_pad|>"

    def video_text(self, clip: Clip, moments: int, tokens: int) -> str:
        """Each frame pair behind the mean of its two times, in seconds.

        Source: `Qwen3VLProcessor` of transformers 4.57; 5.23 leaves markers around them all.
        """
        times = [*clip.times, clip.times[-1]]
        return "".join(
            f"<{(times[PAIR * moment] + times[PAIR * moment + 1]) / PAIR:.1f} seconds>"
            f"<|vision_start|>{'<|video_pad|>' * tokens}<|vision_end|>"
            for moment in range(moments)
        )

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        """As in other Qwen-VL families, but each frame of a video is a run of its own."""
        layouts = super().layouts(model, rows, positions, inputs)
        frames = sum(is_frame(image) for layout in layouts for image in layout.images)
        if not frames:
            return layouts
        if "video_grid_thw" not in inputs:
            raise UserError(
                "The prompt holds a video, but the inputs do not say which frames are its: pass "
                "video_grid_thw, or encode it inside pruned(...)."
            )
        counts = inputs["video_grid_thw"][:, 0].tolist()
        times = repeats(len(rows), frames, sum(counts), "frames")
        numbered = iter(enumerate(counts))
        joined = [_joined(layout, numbered) for layout in layouts[::times]]
        return [layout for layout in joined for _ in range(times)]

    def _run_grids(self, kind: str, grids: Tensor) -> list[tuple[int, int]]:
        frames = grids[:, 0] if kind == "video" else torch.ones_like(grids[:, 0])
        return super()._run_grids(kind, grids.repeat_interleave(frames, 0))


def _joined(layout: PromptLayout, counts: Iterator[tuple[int, int]]) -> PromptLayout:
    """The layout with frames joined to videos.

    Args:
        layout: A layout in which each frame is an image.
        counts: (number, frames) of each video.
    """
    images: list[ImageLayout] = []
    frames: list[Grid] = []
    number = count = 0
    for image in layout.images:
        if not is_frame(image):
            images.append(image)
            continue
        if not frames:
            number, count = next(counts)
        frames.append(image.grids[0])
        if len(frames) == count:
            images.append(ImageLayout(tuple(frames), number))
            frames = []
    return replace(layout, images=tuple(images))
