"""DeepSeek-VL: one padded square of tokens for each image, 1-D positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from ivcp.core.family import BoxFrame, Inputs, Rows
from ivcp.core.layout import PromptLayout
from ivcp.core.tower import VisionTower
from ivcp.core.types import Sample
from ivcp.models import wording
from ivcp.models.encoding import images_of
from ivcp.models.hub import HubFamily
from ivcp.models.llava15 import square_area, square_frame, square_layouts, tokens_along
from ivcp.models.processor import ProcessedImages, Processor
from ivcp.models.towers import DeepSeekVLTower

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)


@dataclass(frozen=True, kw_only=True)
class DeepSeekVL(HubFamily):
    """DeepSeek-VL of the size whose vision tower is SigLIP alone (1.3B).

    No grounding format was published: questions are worded as for LLaVA, and boxes are read as
    fractions of the image.
    """

    path: str | None = "deepseek-community/deepseek-vl-1.3b-chat"

    model_types: ClassVar[tuple[str, ...]] = ("deepseek_vl",)
    architecture: ClassVar[str] = "DeepseekVLForConditionalGeneration"
    image_processor: ClassVar[str] = "DeepseekVLImageProcessorPil"
    image_token: ClassVar[str] = "<image_placeholder>"
    makes_square: ClassVar[bool] = True

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        return len(sizes) * tokens_along(processor.config) ** 2

    def format_question(self, sample: Sample) -> str:
        return wording.deepseek(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """Source: the conversation of DeepSeek-VL's chat processor."""
        images = self.image_token * len(sample.images)
        return f"{SYSTEM}\n\nUser: {(images + self.question_text(sample)).strip()}\n\nAssistant:"

    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        images = images_of(samples)
        pixels = processor.images(images, return_tensors="pt")
        text = self.image_token * tokens_along(processor.config) ** 2
        squares = [square_area(_padded(processor.images, image.size)) for image in images]
        frames = [BoxFrame(1, 1, *image.size) for image in images]
        return ProcessedImages(dict(pixels), [text] * len(images), frames, squares)

    def vision(self, model: nn.Module) -> nn.Module:
        return self.entry(model).vision_model  # type: ignore[return-value]

    def tower(self, model: nn.Module) -> VisionTower:
        return DeepSeekVLTower(self.entry(model))

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        return square_layouts(model, rows, inputs, tokens_along(model.config), query_offset=1)


def _padded(processor: Any, size: tuple[int, int]) -> BoxFrame:
    """Frame of the square into which an image of `size` is fitted; thin images are widened."""
    side = processor.size["height"]
    width, height = (max(round(edge * side / max(size)), processor.min_size) for edge in size)
    return square_frame((width, height), side)
