"""SmolVLM2: images as Idefics3, and videos whose frames are global views behind their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ivcp.core.family import Encoded, Inputs, Rows
from ivcp.core.layout import ImageLayout, PromptLayout
from ivcp.core.types import Sample
from ivcp.core.video import Clip, Video
from ivcp.models.idefics3 import Idefics3, side_of, visible
from ivcp.models.placeholders import mismatch
from ivcp.models.processor import ProcessedVideos, Processor
from ivcp.models.towers_idefics import shown_views
from ivcp.models.video_frames import check_frames

IMAGE, BEGINS, GOES_ON = 1, 2, 3
"""Values in the mask of a view's pixels: it shows an image, or the first or a later frame of a
video. The model reads them all as "no padding"; no other input of it tells frames from images."""
SKIPPED = 1.0
"""Seconds that are left out at both ends of a long video."""
ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@dataclass(frozen=True, kw_only=True)
class SmolVLM(Idefics3):
    """SmolVLM2 of any size, whose checkpoint is of the type `smolvlm`.

    Attributes, beside those of `Idefics3`:
        frames: Frames of each video, where it has as many; None to go by `fps`.
        fps: Frames a second of each video.
        max_frames: Most frames by `fps`.
    """

    path: str | None = "HuggingFaceTB/SmolVLM2-2.2B-Instruct"
    rules: bool = True
    frames: int | None = None
    fps: float = 1.0
    max_frames: int = 64

    model_types: ClassVar[tuple[str, ...]] = ("smolvlm",)
    architecture: ClassVar[str] = "SmolVLMForConditionalGeneration"
    image_processor: ClassVar[str] = "SmolVLMImageProcessorPil"
    video_token: ClassVar[str] = "<video>"
    takes_videos: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check types and limits.

        Raises:
            UserError: A field has another type, or a limit is too small.
        """
        super().__post_init__()
        check_frames(self.frames, self.fps, 1, self.max_frames)

    def read_clip(self, processor: Processor, video: Video) -> Clip:
        """Source: `SmolVLMVideoProcessor.sample_frames` of transformers 5.23.

        Frames of more than twice the pixels along a view are shrunk to these when they are read, so
        that many of them fit into memory.
        """
        most = 2 * processor.images.max_image_size["longest_edge"]

        def choose(total: int, rate: float) -> list[int]:
            seconds, last = total / rate, total - 1
            count = self.frames or max(1, min(round(self.fps * seconds), self.max_frames))
            begin, end = 0, last
            if seconds - 2 * SKIPPED > self.max_frames * self.fps:
                begin, end = int(SKIPPED * rate), min(int(total - SKIPPED * rate), last)
            spaced = np.linspace(begin, end, min(count, total), dtype=int)
            return [int(index) for index in np.unique(spaced)]

        def size(_: int, width: int, height: int) -> tuple[int, int]:
            scale = min(1.0, most / max(width, height))
            return max(1, round(scale * width)), max(1, round(scale * height))

        return video.read(choose, size)

    def process_videos(self, processor: Processor, clips: Sequence[Clip]) -> ProcessedVideos:
        """Frames as images that are not cut; the longer edge first, then a square."""
        tile = processor.images.max_image_size["longest_edge"]
        size = side_of(processor.config) ** 2
        pixels = []
        for clip in clips:
            images = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip.frames]
            frames = processor.images(
                [images], do_image_splitting=False, size={"longest_edge": tile},
                return_tensors="pt",
            )  # fmt: skip
            pixels.append(visible(frames["pixel_values"][0]))
        counts = torch.tensor([len(frames) for frames in pixels])
        inputs = {"video_frames": torch.cat(pixels)[:, None], "frame_counts": counts}
        return ProcessedVideos(inputs, [self.video_text(clip, size) for clip in clips])

    def video_text(self, clip: Clip, tokens: int) -> str:
        """The text of a video in the prompt.

        Source: `SmolVLMProcessor` of transformers 5.23.

        Args:
            clip: Its frames.
            tokens: Visual tokens of each.
        """
        view = self.image_text(0, 0, tokens)
        views = "".join(
            f"\nFrame from {int(time // 60):02d}:{int(time % 60):02d}:{view}" for time in clip.times
        )
        return (
            f"You are provided the following series of {in_words(len(clip.times))} frames from a "
            f"{timedelta(seconds=int(clip.duration))} [H:MM:SS] video.\n{views}\n\n"
        )

    def encode(self, processor: Processor, samples: Sequence[Sample]) -> Encoded:
        """Prompts and inputs; frames and views of images are in the order of the prompts."""
        encoded = super().encode(processor, samples)
        inputs = encoded.inputs
        if "video_frames" not in inputs:
            return encoded
        counts = iter(inputs.pop("frame_counts").tolist())
        frames = inputs.pop("video_frames")
        views = inputs.get("pixel_values", frames[:0])
        pixels, marks = [], []
        for sample, tokens in zip(samples, encoded.image_tokens or (), strict=True):
            left = tokens // side_of(processor.config) ** 2
            for count in (next(counts) for _ in sample.videos):
                pixels.append(frames[:count])
                marks += [BEGINS] + [GOES_ON] * (count - 1)
                frames, left = frames[count:], left - count
            pixels.append(views[:left])
            marks += [IMAGE] * left
            views = views[left:]
        inputs["pixel_values"] = torch.cat(pixels)
        inputs["pixel_attention_mask"] = frame_mask(marks, inputs["pixel_values"].shape[-1])
        return encoded

    def layout_inputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Which views are shown, and what they are."""
        small = super().layout_inputs(model, inputs)
        mask = inputs.get("pixel_attention_mask")
        if small and mask is not None:
            small["pixel_attention_mask"] = mask[..., 0, 0]
        return small

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        layouts = super().layouts(model, rows, positions, inputs)
        mask, views = inputs.get("pixel_attention_mask"), inputs.get("pixel_values")
        if mask is None or views is None:
            return layouts
        marks = mask[shown_views(views)].tolist()
        return [replace(layout, images=joined(layout.images, marks)) for layout in layouts]


def frame_mask(marks: Sequence[int], edge: int) -> Tensor:
    """(N, 1, edge, edge) masks of views: what each shows, at all its pixels."""
    return torch.tensor(marks, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, edge, edge)


def joined(images: Sequence[ImageLayout], marks: Sequence[int]) -> tuple[ImageLayout, ...]:
    """The images of a prompt; frames of a video are one.

    Args:
        images: Images, and frames as images.
        marks: What each view of the batch shows.

    Raises:
        UserError: A video goes on that has not begun.
    """
    together: list[ImageLayout] = []
    for image in images:
        mark = marks[image.number]
        if mark < BEGINS:
            together.append(image)
            continue
        grids = tuple(replace(grid, kind="frame") for grid in image.grids)
        if mark == BEGINS:
            together.append(ImageLayout(grids, image.number))
        elif together:
            together[-1] = replace(together[-1], grids=(*together[-1].grids, *grids))
        else:
            raise mismatch(len(images), 0, "first frames of videos")
    return tuple(together)


def in_words(number: int) -> str:
    """A number below 1,000 in words, as the package num2words writes it; a larger one in digits.

    >>> in_words(8), in_words(64), in_words(128)
    ('eight', 'sixty-four', 'one hundred and twenty-eight')
    """
    if number >= 1000:
        return str(number)
    if number < len(ONES):
        return ONES[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")
    hundreds, rest = divmod(number, 100)
    return f"{ONES[hundreds]} hundred" + (f" and {in_words(rest)}" if rest else "")
