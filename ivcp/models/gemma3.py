"""Gemma 3: 256 tokens an image that attend in both directions, most layers within a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ivcp.core.family import BoxFrame, Encoded, Inputs, Rows
from ivcp.core.layer_kinds import LayerKind
from ivcp.core.layout import PromptLayout
from ivcp.core.tower import VisionTower
from ivcp.core.types import Sample
from ivcp.models import wording
from ivcp.models.decoders import rope_frequencies
from ivcp.models.encoding import images_of
from ivcp.models.hub import HubFamily
from ivcp.models.llava15 import square_layouts
from ivcp.models.processor import ProcessedImages, Processor
from ivcp.models.towers import Gemma3Tower

TYPES: dict[LayerKind, str] = {"full": "full_attention", "sliding": "sliding_attention"}


@dataclass(frozen=True, kw_only=True)
class Gemma3(HubFamily):
    """Gemma 3 of the sizes that see images (4B and larger), without pan and scan.

    No grounding format was published: questions are worded as for DeepSeek-VL, and boxes are read
    as fractions of the image. A prompt and its answer must be shorter than the window of the
    sliding layers, 1,024 tokens. IVC tokens are those of the full layers' rotary frequencies.
    """

    path: str | None = "google/gemma-3-4b-it"

    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)
    decoder_types: ClassVar[tuple[str, ...]] = ("gemma3_text",)
    architecture: ClassVar[str] = "Gemma3ForConditionalGeneration"
    image_processor: ClassVar[str] = "Gemma3ImageProcessorPil"
    image_token: ClassVar[str] = "<image_soft_token>"
    supported_kinds: ClassVar[frozenset[LayerKind]] = frozenset({"full", "sliding"})
    bidirectional: ClassVar[bool] = True

    def _images(self, config: Any) -> Any:
        images = super()._images(config)
        images.do_pan_and_scan = False  # stored as null, which the library's processor reads so
        return images

    @property
    def placeholders(self) -> tuple[str, ...]:
        return self.image_token, "<start_of_image>"

    def format_question(self, sample: Sample) -> str:
        return wording.deepseek(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """Source: the chat template of the checkpoints, and the library's processor."""
        images = "".join(
            f"\n\n<start_of_image>{self.image_token}<end_of_image>\n\n" for _ in sample.images
        )
        turn = images + self.question_text(sample).strip()
        return f"<start_of_turn>user\n{turn}<end_of_turn>\n<start_of_turn>model\n"

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        return len(sizes) * processor.config.mm_tokens_per_image

    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        images = images_of(samples)
        pixels = processor.images(images, return_tensors="pt")
        text = self.image_token * processor.config.mm_tokens_per_image
        frames = [BoxFrame(1, 1, *image.size) for image in images]
        inputs = {"pixel_values": pixels["pixel_values"]}
        return ProcessedImages(inputs, [text] * len(images), frames)

    def encode(self, processor: Processor, samples: Sequence[Sample]) -> Encoded:
        encoded = super().encode(processor, samples)
        token = processor.tokenizer.convert_tokens_to_ids(self.image_token)
        encoded.inputs["token_type_ids"] = (encoded.inputs["input_ids"] == token).int()
        return encoded

    def rotary(self, decoder: nn.Module, hidden: Tensor, ids: Tensor, kind: LayerKind) -> Any:
        return decoder.rotary_emb(hidden, ids, TYPES[kind])  # type: ignore[operator]

    def inverse_frequencies(self, model: nn.Module) -> Tensor:
        return rope_frequencies(self.decoder(model), TYPES["full"])

    def tower(self, model: nn.Module) -> VisionTower:
        return Gemma3Tower(self.entry(model))

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        config: Any = model.config
        side = int(config.mm_tokens_per_image**0.5)
        layouts = square_layouts(model, rows, inputs, side, query_offset=1)
        marks = torch.tensor([config.boi_token_index, config.eoi_token_index])
        return [
            PromptLayout(
                layout.length, layout.images, torch.isin(row, marks).nonzero()[:, 0],
                query_offset=1,
            )
            for layout, row in zip(layouts, rows, strict=True)
        ]  # fmt: skip
