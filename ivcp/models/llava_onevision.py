"""LLaVA-OneVision: an image as a whole and in tiles, several images or a video as single views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame, Inputs, Rows
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.tower import VisionTower
from ivcp.core.types import Sample
from ivcp.core.video import Clip, Video
from ivcp.models import wording
from ivcp.models.encoding import images_of
from ivcp.models.hub import HubFamily
from ivcp.models.llava15 import square_area, square_frame
from ivcp.models.llavanext import anyres, anyres_tokens
from ivcp.models.placeholders import assign, structural
from ivcp.models.processor import ProcessedImages, ProcessedVideos, Processor
from ivcp.models.towers_llava_onevision import LlavaOnevisionTower
from ivcp.models.video_frames import normalized


@dataclass(frozen=True, kw_only=True)
class LlavaOnevision(HubFamily):
    """LLaVA-OneVision of any size.

    A single image is shown squeezed to a square and in tiles, each of several images padded to a
    square, and each frame of a video squeezed to a square with a quarter of the tokens.
    Source: LLaVA-OneVision (arXiv 2408.03326), section 3.2 and figure 3.

    Attributes, beside those of every family (`HubFamily`):
        box_frame: What fractions in answers refer to: "image", or "padded", the square around the
            image on which LLaVA-1.5's boxes were written; which one the model learned is unknown.
        frames: Frames of each video, evenly spaced, both ends included; a clip with fewer shows
            some twice. Source: `llava_onevision` of lmms-eval, 32 frames by default.
    """

    path: str | None = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
    box_frame: Literal["image", "padded"] = "image"
    frames: int = 32

    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    architecture: ClassVar[str] = "LlavaOnevisionForConditionalGeneration"
    image_processor: ClassVar[str] = "LlavaOnevisionImageProcessorPil"
    image_token: ClassVar[str] = "<image>"
    video_token: ClassVar[str] = "<video>"
    takes_videos: ClassVar[bool] = True
    begins_with_bos: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check types and limits.

        Raises:
            UserError: A field has another type, or there are no frames.
        """
        super().__post_init__()
        if self.frames < 1:
            raise UserError(f"model.frames must be at least 1; got {self.frames}.")

    def format_question(self, sample: Sample) -> str:
        return wording.llava(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """Source: LLaVA's conversation `qwen_1_5`."""
        videos = f"{self.video_token}\n" * len(sample.videos)
        images = f"{self.image_token}\n" * len(sample.images)
        question = videos + images + self.question_text(sample)
        turns = (("system", "You are a helpful assistant."), ("user", question))
        chat = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
        return f"{chat}<|im_start|>assistant\n"

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        heights = [(height, width) for width, height in sizes]
        return sum(_tokens(processor.config, size, len(sizes) == 1) for size in heights)

    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        groups = [list(sample.images) for sample in samples if sample.images]
        pixels = processor.images(groups, return_tensors="pt")
        texts = [
            self.image_token * _tokens(processor.config, size, alone)
            for size, alone in _images(pixels)
        ]
        frames = [
            square_frame(image.size, max(image.size))
            if self.box_frame == "padded"
            else BoxFrame(1, 1, *image.size)
            for image in images_of(samples)
        ]
        return ProcessedImages(dict(pixels), texts, frames)

    def read_clip(self, processor: Processor, video: Video) -> Clip:
        """Frames squeezed to the tower's square."""
        side = processor.config.vision_config.image_size

        def choose(total: int, _: float) -> list[int]:
            # rounded down; more frames than the clip has repeat some, since a batch needs equal
            # numbers of frames
            return np.linspace(0, total - 1, self.frames, dtype=int).tolist()

        return video.read(choose, lambda *_: (side, side))

    def process_videos(self, processor: Processor, clips: Sequence[Clip]) -> ProcessedVideos:
        images, texts = processor.images, []
        for clip in clips:
            layout = video_layout(processor.config, len(clip.frames), 0)
            texts.append(self.video_token * (layout.length + 1))
        pixels = [normalized(clip.frames, images.image_mean, images.image_std) for clip in clips]
        return ProcessedVideos({"pixel_values_videos": torch.stack(pixels)}, texts)

    def tower(self, model: nn.Module) -> VisionTower:
        return LlavaOnevisionTower(self.entry(model))

    def layout_inputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        names = ("image_sizes", "batch_num_images")
        present = {name: inputs[name] for name in names if inputs.get(name) is not None}
        return {name: torch.as_tensor(value) for name, value in present.items()}

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        config: Any = model.config
        images = _images(inputs)
        lengths = [_tokens(config, size, alone) for size, alone in images]
        frames = _frames(inputs)
        of_images = assign(rows, config.image_token_id, lengths)
        # 1: the newline behind the last frame
        lengths = [video_layout(config, count, 0).length + 1 for count in frames]
        of_videos = assign(rows, config.video_token_id, lengths)
        layouts = []
        for row, in_row, videos_in_row in zip(rows, of_images, of_videos, strict=True):
            stills = [
                replace(image_layout(config, *images[number], start), number=number)
                for number, start in in_row
            ]
            videos = [
                replace(video_layout(config, frames[number], start), number=number)
                for number, start in videos_in_row
            ]
            newlines = torch.cat(
                [
                    structural(row, config.image_token_id, stills),
                    structural(row, config.video_token_id, videos),
                ]
            )
            visual = sorted([*stills, *videos], key=lambda image: image.start)
            # 3: the newline behind the last visual token, and two tokens as in LLaVA-1.5
            layouts.append(
                PromptLayout(len(row), tuple(visual), newlines.sort().values, query_offset=3)
            )
        return layouts


def _images(inputs: Inputs) -> list[tuple[list[int], bool]]:
    """(height, width) of each image, and whether it is the only one of its sample.

    Without `batch_num_images`, the library takes each image for the only one.
    """
    if inputs.get("image_sizes") is None:
        return []
    sizes = torch.as_tensor(inputs["image_sizes"]).tolist()
    counts = inputs.get("batch_num_images")
    if counts is None:
        return [(size, True) for size in sizes]
    alone = [count == 1 for count in torch.as_tensor(counts).tolist() for _ in range(count)]
    if len(alone) != len(sizes):
        raise UserError(
            f"batch_num_images counts {len(alone)} images, but image_sizes holds {len(sizes)}: "
            "pass what the processor gives."
        )
    return list(zip(sizes, alone, strict=True))


def _frames(inputs: Inputs) -> list[int]:
    """Number of frames of each video."""
    videos = inputs.get("pixel_values_videos")
    return [] if videos is None else [videos.shape[1]] * len(videos)


def image_layout(config: Any, size: Sequence[int], alone: bool, start: int) -> ImageLayout:
    """Grids of an image.

    Args:
        config: The model's configuration.
        size: Height and width of the image in pixels.
        alone: Whether it is the only image of its sample.
        start: Prompt index of its first token.
    """
    if alone:
        return anyres(config, size, start)
    side, (height, width) = _side(config), size
    area = square_area(square_frame((width, height), max(size)))
    return ImageLayout((Grid(start, side, side, area=area),))


def video_layout(config: Any, frames: int, start: int) -> ImageLayout:
    """Grids of a video whose first token has the prompt index `start`."""
    side = math.ceil(_side(config) / 2)
    starts = range(start, start + frames * side * side, side * side)
    return ImageLayout(tuple(Grid(index, side, side, "frame") for index in starts))


def _tokens(config: Any, size: Sequence[int], alone: bool) -> int:
    """Image tokens of an image of `size` (height, width), newlines included."""
    return anyres_tokens(config, size) if alone else _side(config) ** 2 + 1


def _side(config: Any) -> int:
    """Tokens along a view."""
    return int(config.vision_config.image_size // config.vision_config.patch_size)
