"""Qwen2-VL: M-RoPE, boxes in thousandths of the image; and what all Qwen-VL families share."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import Encoded, Frame
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.types import Box, Sample
from ivcp.models import wording
from ivcp.models.hub import (
    BRACKETS,
    NUMBER,
    HubFamily,
    Processor,
    Seen,
    four_numbers,
    pictures,
)
from ivcp.models.placeholders import repeats, runs

PARENTHESES = re.compile(rf"\({NUMBER},{NUMBER}\)\s*,\s*\({NUMBER},{NUMBER}\)")


@dataclass(frozen=True, kw_only=True)
class QwenFamily(HubFamily):
    """Loading, chat, images and layout of Qwen-VL.

    Attributes, beside those of every family (`HubFamily`):
        min_pixels: Images with fewer pixels are enlarged; None keeps the checkpoint's value.
        max_pixels: Images with more pixels are shrunk; None keeps the checkpoint's value.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None

    image_processor: ClassVar[str] = "Qwen2VLImageProcessorPil"
    image_token: ClassVar[str] = "<|image_pad|>"
    takes_videos: ClassVar[bool] = True
    begins_with_bos: ClassVar[bool] = False

    def _images(self, config: Any) -> Any:
        images = super()._images(config)
        size = dict(images.size)
        images.size = {
            "shortest_edge": self.min_pixels or size["shortest_edge"],
            "longest_edge": self.max_pixels or size["longest_edge"],
        }
        return images

    def ask(self, sample: Sample) -> str:
        return wording.qwen(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        content = [
            *({"type": "image"} for _ in sample.images),
            {"type": "text", "text": self.asked(sample)},
        ]
        prompt: str = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        return prompt

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        """An image that is too thin to be resized has none."""
        images, patches = processor.images, 0
        for width, height in sizes:
            with suppress(ValueError):
                patches += images.get_number_of_image_patches(height, width)
        return patches / images.merge_size**2

    def see(self, processor: Processor, samples: Sequence[Sample]) -> Seen:
        images = pictures(samples)
        pixels = processor.images(images, return_tensors="pt")
        merge, cell = processor.images.merge_size, processor.images.patch_size
        texts, frames = [], []
        for image, (_, rows, columns) in zip(
            images, pixels["image_grid_thw"].tolist(), strict=True
        ):
            texts.append(self.image_token * (rows * columns // merge**2))
            frames.append(self.frame(columns * cell, rows * cell, image.size))
        return Seen(dict(pixels), texts, frames)

    @abstractmethod
    def frame(self, width: int, height: int, size: tuple[int, int]) -> Frame:
        """Frame of boxes for an image of `size` that was resized to `width` x `height` pixels."""

    def encode(self, processor: Processor, samples: Sequence[Sample]) -> Encoded:
        encoded = super().encode(processor, samples)
        token = processor.tokenizer.convert_tokens_to_ids(self.image_token)
        encoded.inputs["mm_token_type_ids"] = (encoded.inputs["input_ids"] == token).int()
        return encoded

    def vision(self, model: nn.Module) -> nn.Module:
        return model.model.visual  # type: ignore[union-attr,return-value]

    def layouts(
        self,
        model: nn.Module,
        rows: Sequence[Tensor],
        positions: Sequence[Tensor] | None,
        inputs: dict[str, Any],
    ) -> list[PromptLayout]:
        if positions is not None and len(positions[0]) < 3:
            positions = None  # plain numbers tell nothing about grids
        config: Any = model.config
        merge = config.vision_config.spatial_merge_size
        kinds = {config.image_token_id: "image", config.video_token_id: "video"}
        grids = {
            token: iter(() if given is None else self._run_grids(kind, given))
            for token, kind in kinds.items()
            for given in (inputs.get(f"{kind}_grid_thw"),)
        }
        marks = torch.tensor([config.vision_start_token_id, config.vision_end_token_id])
        layouts = []
        for number, row in enumerate(rows):
            images = []
            for start, length, token in sorted((*run, t) for t in kinds for run in runs(row, t)):
                if positions is None:
                    height, width = (edge // merge for edge in next(grids[token], (0, 0)))
                else:  # axes are time, height, width
                    place = positions[number][:, start : start + length]
                    height, width = (place.amax(1) - place.amin(1) + 1).tolist()[1:]
                images.append(_layout(kinds[token], start, length, height, width))
            markers = torch.isin(row, marks).nonzero()[:, 0]
            layouts.append(PromptLayout(len(row), tuple(images), markers))
        if (given := inputs.get("image_grid_thw")) is not None:
            whole = [image for one in layouts for image in one.images if not is_frame(image)]
            repeats(len(rows), len(whole), len(given), "images")
        return layouts

    def _run_grids(self, kind: str, grids: Tensor) -> list[tuple[int, int]]:
        """(rows, columns) of patches of each run of visual tokens in the prompt.

        Args:
            kind: "image" or "video".
            grids: (N, 3) times, rows and columns of patches of each image or video.
        """
        return [(rows, columns) for _, rows, columns in grids.tolist()]


def is_frame(image: ImageLayout) -> bool:
    """Whether visual tokens show a video, or a moment of one."""
    return image.grids[0].kind == "frame"


def _layout(kind: str, start: int, length: int, rows: int, columns: int) -> ImageLayout:
    """A run of visual tokens: an image, or the frames of a video."""
    size = rows * columns
    if not size or length % size or (kind == "image" and length != size):
        raise UserError(
            f"Each run of image tokens must be one whole image; got {length} tokens for a grid of "
            f"{rows} x {columns}. Go without prefill_chunk_size and pass position_ids or "
            "image_grid_thw."
        )
    if kind == "image":
        return ImageLayout((Grid(start, rows, columns),))
    frames = range(start, start + length, size)
    return ImageLayout(tuple(Grid(first, rows, columns, "frame") for first in frames))


@dataclass(frozen=True, kw_only=True)
class Qwen2VL(QwenFamily):
    """Qwen2-VL of any size."""

    path: str | None = "Qwen/Qwen2-VL-7B-Instruct"

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    architecture: ClassVar[str] = "Qwen2VLForConditionalGeneration"

    def ask(self, sample: Sample) -> str:
        """Source: the prompts of the IVC-Prune release, the expression left whole."""
        if sample.task == "grounding":
            return f"\n<|object_ref_start|>Detect {sample.question.lower()}<|object_ref_end|>"
        return super().ask(sample)

    def frame(self, width: int, height: int, size: tuple[int, int]) -> Frame:
        return Frame(1000, 1000, *size)

    def decode(self, processor: Processor, tokens: Tensor) -> list[str]:
        """Box markers are special tokens here, so only padding and turn ends are taken out."""
        texts: list[str] = processor.tokenizer.batch_decode(tokens, skip_special_tokens=False)
        return [re.sub(r"<\|(endoftext|im_end)\|>", "", text) for text in texts]

    def parse_box(self, text: str) -> Box | None:
        """The first `(x1,y1),(x2,y2)`, else the first bracketed list of four numbers."""
        return four_numbers(PARENTHESES, text) or four_numbers(BRACKETS, text)
