"""LLaVA-1.5: one square of tokens an image, 1-D positions, boxes as fractions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.tower import VisionTower
from ivcp.core.types import Box, Sample
from ivcp.models import wording
from ivcp.models.clip_text import ClipFamily
from ivcp.models.hub import ProcessedImages, Processor, one_of, pictures
from ivcp.models.placeholders import deal
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
    """What a unit square shows of the image, as fractions of the image."""
    x, y = -frame.left / frame.width, -frame.top / frame.height
    return x, y, x + 1 / frame.width, y + 1 / frame.height


@dataclass(frozen=True, kw_only=True)
class Llava15(ClipFamily):
    """LLaVA-1.5 of any size.

    Attributes, beside those of every family (`HubFamily`) and `ClipFamily`:
        square: How an image becomes a square: "pad" with the mean colour, as LLaVA-1.5 was trained,
            or "crop" its middle, as the converted checkpoints are configured.
        box_frame: What fractions in answers refer to if the image is padded: "padded", the square
            that the model is shown and was trained on (haotian-liu/LLaVA issue 606), or "image".
    """

    path: str | None = "llava-hf/llava-1.5-7b-hf"
    square: Literal["pad", "crop"] = "pad"
    box_frame: Literal["image", "padded"] = "padded"

    model_types: ClassVar[tuple[str, ...]] = ("llava",)
    architecture: ClassVar[str] = "LlavaForConditionalGeneration"
    image_processor: ClassVar[str] = "LlavaImageProcessorPil"
    image_token: ClassVar[str] = "<image>"

    def __post_init__(self) -> None:
        """Check the choices.

        Raises:
            UserError: A field has an unknown value.
        """
        super().__post_init__()
        one_of("square", self.square, ("pad", "crop"))
        one_of("box_frame", self.box_frame, ("image", "padded"))

    def _images(self, config: Any) -> Any:
        images = super()._images(config)
        images.do_pad = self.square == "pad"
        return images

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        return len(sizes) * tokens_along(processor.config) ** 2

    def ask(self, sample: Sample) -> str:
        return wording.llava(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """Source: LLaVA's conversation `vicuna_v1`."""
        images = f"{self.image_token}\n" * len(sample.images)
        return f"{VICUNA} USER: {images}{self.asked(sample)} ASSISTANT:"

    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        images = pictures(samples)
        pixels = processor.images(images, return_tensors="pt")
        text = self.image_token * tokens_along(processor.config) ** 2
        side = max if self.square == "pad" else min
        frames = [square_frame(image.size, side(image.size)) for image in images]
        shown = [square_area(frame) for frame in frames]
        if self.square == "pad" and self.box_frame == "image":
            frames = [BoxFrame(1, 1, *image.size) for image in images]
        return ProcessedImages(dict(pixels), [text] * len(images), frames, shown)

    def tower(self, model: nn.Module) -> VisionTower:
        return LlavaTower(self.entry(model))

    def layouts(
        self,
        model: nn.Module,
        rows: Sequence[Tensor],
        positions: Sequence[Tensor] | None,
        inputs: Mapping[str, Any],
    ) -> list[PromptLayout]:
        return square_layouts(model, rows, inputs, tokens_along(model.config), query_offset=2)


def tokens_along(config: Any) -> int:
    """Visual tokens along the side of an image.

    Raises:
        UserError: The vision tower gives more than a square of patches.
    """
    if getattr(config, "vision_feature_select_strategy", "default") != "default":
        raise UserError(
            "Only LLaVA models with one square of tokens an image are supported; this one has "
            f"vision_feature_select_strategy={config.vision_feature_select_strategy!r}."
        )
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def square_layouts(
    model: Any, rows: Sequence[Tensor], inputs: Mapping[str, Any], side: int, query_offset: int
) -> list[PromptLayout]:
    """Layouts of prompts in which each image is a square of `side` x `side` tokens."""
    token, size = model.config.image_token_id, side * side
    pixels = inputs.get("pixel_values")
    images = (
        len(pixels) if pixels is not None else sum(int((r == token).sum()) for r in rows) // size
    )
    return [
        PromptLayout(
            len(row),
            tuple(ImageLayout((Grid(start, side, side),), number) for number, start in places),
            query_offset=query_offset,
        )
        for row, places in zip(rows, deal(rows, token, [size] * images), strict=True)
    ]
