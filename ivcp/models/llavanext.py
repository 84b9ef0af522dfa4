"""LLaVA-NeXT: a thumbnail, then tiles joined to one grid, a newline token behind each row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ivcp.core.family import BoxFrame, Inputs, Rows
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.tower import VisionTower
from ivcp.core.types import Sample
from ivcp.models import wording
from ivcp.models.clip_text import ClipFamily
from ivcp.models.encoding import images_of
from ivcp.models.llava15 import VICUNA
from ivcp.models.placeholders import assign, structural
from ivcp.models.processor import ProcessedImages, Processor
from ivcp.models.towers import LlavaNextTower


@dataclass(frozen=True, kw_only=True)
class LlavaNext(ClipFamily):
    """LLaVA-NeXT (LLaVA-1.6) of any size.

    Attributes, beside those of every family (`HubFamily`) and `ClipFamily`:
        chat: The conversation of its language model: "vicuna" or "mistral".
    """

    path: str | None = "llava-hf/llava-v1.6-vicuna-7b-hf"
    chat: Literal["vicuna", "mistral"] = "vicuna"

    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)
    architecture: ClassVar[str] = "LlavaNextForConditionalGeneration"
    image_processor: ClassVar[str] = "LlavaNextImageProcessorPil"
    image_token: ClassVar[str] = "<image>"

    def format_question(self, sample: Sample) -> str:
        return wording.llava(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """Source: LLaVA's conversations `vicuna_v1` and `mistral_instruct`."""
        question = f"{self.image_token}\n" * len(sample.images) + self.question_text(sample)
        if self.chat == "mistral":
            return f"[INST] {question} [/INST]"
        return f"{VICUNA} USER: {question} ASSISTANT:"

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        return sum(anyres_tokens(processor.config, (height, width)) for width, height in sizes)

    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        images = images_of(samples)
        pixels = processor.images(images, return_tensors="pt")
        texts = [
            self.image_token * anyres_tokens(processor.config, size)
            for size in pixels["image_sizes"].tolist()
        ]
        return ProcessedImages(
            dict(pixels), texts, [BoxFrame(1, 1, *image.size) for image in images]
        )

    def tower(self, model: nn.Module) -> VisionTower:
        return LlavaNextTower(self.entry(model))

    def layout_inputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        sizes = inputs.get("image_sizes")
        return {} if sizes is None else {"image_sizes": torch.as_tensor(sizes)}

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        config: Any = model.config
        sizes = inputs["image_sizes"].tolist() if "image_sizes" in inputs else []
        lengths = [anyres_tokens(config, size) for size in sizes]
        layouts = []
        assigned = assign(rows, config.image_token_id, lengths)
        for row, starts in zip(rows, assigned, strict=True):
            images = [
                replace(anyres(config, sizes[number], start), number=number)
                for number, start in starts
            ]
            # 3: the newline behind the last visual token, and two tokens as in LLaVA-1.5
            newlines = structural(row, config.image_token_id, images)
            layouts.append(PromptLayout(len(row), tuple(images), newlines, query_offset=3))
        return layouts


def anyres(config: Any, size: Sequence[int], start: int) -> ImageLayout:
    """Grids of an image that is shown as a whole and in tiles.

    The tiles' features are joined, rows and columns of pure padding are cut off, and a newline is
    put behind each row. Source: LLaVA-NeXT's `spatial_unpad`, as the library computes it.

    Args:
        config: Configuration of LLaVA-NeXT or LLaVA-OneVision, which also limits the tokens.
        size: Height and width of the image in pixels.
        start: Prompt index of its first token.
    """
    side, rows, columns, scale = _unpadded(config, size)
    if not rows * columns:  # of a very thin image, the tiles are newlines only
        return ImageLayout((Grid(start, side, side),))
    x, y = columns / (size[1] * scale) / 2, rows / (size[0] * scale) / 2
    area = (0.5 - x, 0.5 - y, 0.5 + x, 0.5 + y)
    rows, columns = shrunk(config, rows, columns)
    thumbnail = Grid(start, side, side, "thumbnail")
    tiles = Grid(start + side * side, rows, columns, "tile", columns + 1, area)
    return ImageLayout((thumbnail, tiles))


def _unpadded(config: Any, size: Sequence[int]) -> tuple[int, int, int, float]:
    """Tokens along a tile, rows and columns of the joined tiles, and tokens per pixel."""
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_next.modeling_llava_next import unpad_image

    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    canvas = select_best_resolution(size, config.image_grid_pinpoints)
    down, across = (side * edge // vision.image_size for edge in canvas)
    rows, columns = unpad_image(torch.empty(1, down, across), size).shape[1:]
    return side, rows, columns, min(down / size[0], across / size[1])


def shrunk(config: Any, rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns to which the joined tiles are resized if they have too many tokens.

    Source: LLaVA-OneVision's `anyres_max_9`, at most 9 tiles of tokens, as the library computes it;
    LLaVA-NeXT has no limit.
    """
    limit = getattr(config, "vision_aspect_ratio", None)
    if limit is None:
        return rows, columns
    side = config.vision_config.image_size // config.vision_config.patch_size
    ratio = math.sqrt(rows * columns / (int(limit.removeprefix("anyres_max_")) * side**2))
    return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)


def anyres_tokens(config: Any, size: Sequence[int]) -> int:
    """Image tokens of an image of `size` (height, width), newlines included."""
    side, rows, columns, _ = _unpadded(config, size)
    rows, columns = shrunk(config, rows, columns)
    return side * side + rows * (columns + 1)
