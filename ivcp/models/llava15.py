"""LLaVA-1.5: one square of tokens for each image, 1-D positions, boxes as fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame, Inputs, Rows
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.tower import VisionTower
from ivcp.core.types import Box, Sample
from ivcp.models import wording
from ivcp.models.clip_text import ClipFamily
from ivcp.models.encoding import images_of
from ivcp.models.placeholders import assign
from ivcp.models.processor import ProcessedImages, Processor
from ivcp.models.towers import LlavaTower

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)


def square_frame(size: tuple[int, int], side: int) -> BoxFrame:
    """Frame of fractions of a square of `side` pixels around the middle of an image of `size`."""
    width, height = size
    return BoxFrame(
        width / side, height / side, width, height,
        left=(side - width) // 2 / side, top=(side - height) // 2 / side,
    )  # fmt: skip


def square_area(frame: BoxFrame) -> Box:
    """The area of the unit square, as fractions of the image."""
    x, y = -frame.left / frame.width, -frame.top / frame.height
    return x, y, x + 1 / frame.width, y + 1 / frame.height


@dataclass(frozen=True, kw_only=True)
class Llava15(ClipFamily):
    """LLaVA-1.5 of any size; `path` None loads the small model that ships with the package.

    Attributes, beside those of every family (`HubFamily`) and `ClipFamily`:
        square: How an image becomes a square: "pad" with the mean colour, as LLaVA-1.5 was trained,
            or "crop" to its middle, as the converted checkpoints are configured.
        box_frame: What fractions in answers refer to if the image is padded: "padded", the square
            on which the model was trained (haotian-liu/LLaVA issue 606), or "image".
    """

    path: str | None = "llava-hf/llava-1.5-7b-hf"
    square: Literal["pad", "crop"] = "pad"
    box_frame: Literal["image", "padded"] = "padded"

    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    architecture: ClassVar[str] = "LlavaForConditionalGeneration"
    image_processor: ClassVar[str] = "LlavaImageProcessorPil"
    image_token: ClassVar[str] = "<image>"
    packaged: ClassVar[Path | None] = Path(__file__).parent / "tiny_llava"
    makes_square: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:  # no text tower belongs to the packaged model's vision tower
            object.__setattr__(self, "text_tower", None)

    def _images(self, config: Any) -> Any:
        images = super()._images(config)
        images.do_pad = self.square == "pad"
        return images

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        return len(sizes) * tokens_along(processor.config) ** 2

    def format_question(self, sample: Sample) -> str:
        return wording.llava(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """Source: LLaVA's conversation `vicuna_v1`."""
        images = f"{self.image_token}\n" * len(sample.images)
        return f"{VICUNA} USER: {images}{self.question_text(sample)} ASSISTANT:"

    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        images = images_of(samples)
        pixels = processor.images(images, return_tensors="pt")
        text = self.image_token * tokens_along(processor.config) ** 2
        side = max if self.square == "pad" else min
        frames = [square_frame(image.size, side(image.size)) for image in images]
        visible_areas = [square_area(frame) for frame in frames]
        if self.square == "pad" and self.box_frame == "image":
            frames = [BoxFrame(1, 1, *image.size) for image in images]
        return ProcessedImages(dict(pixels), [text] * len(images), frames, visible_areas)

    def tower(self, model: nn.Module) -> VisionTower:
        return LlavaTower(self.entry(model))

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        return square_layouts(model, rows, inputs, tokens_along(model.config), query_offset=2)


def tokens_along(config: Any) -> int:
    """Visual tokens along the side of an image.

    Raises:
        UserError: The visual tokens are not a square of patches.
    """
    if getattr(config, "vision_feature_select_strategy", "default") != "default":
        raise UserError(
            "Only LLaVA models with one square of tokens per image are supported; this one has "
            f"vision_feature_select_strategy={config.vision_feature_select_strategy!r}."
        )
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def square_layouts(
    model: Any, rows: Rows, inputs: Inputs, side: int, query_offset: int
) -> list[PromptLayout]:
    """Layouts of prompts in which each image is a square of `side` x `side` tokens."""
    token, size = model.config.image_token_id, side * side
    pixels = inputs.get("pixel_values")
    if pixels is not None:
        count = len(pixels)
    else:  # features that were encoded before: every square of tokens is an image
        count = sum(int((row == token).sum()) for row in rows) // size
    return [
        PromptLayout(
            len(row),
            tuple(ImageLayout((Grid(start, side, side),), number) for number, start in images),
            query_offset=query_offset,
        )
        for row, images in zip(rows, assign(rows, token, [size] * count), strict=True)
    ]
