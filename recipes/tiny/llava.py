"""The packaged small LLaVA-1.5, with a CLIP tower and 1-D rotary positions: `model=tiny_llava`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
)

from ivcp.datasets.scenes import SIDE
from ivcp.models import wording
from ivcp.models.llava15 import VICUNA, Llava15
from recipes.tiny.instrument import CELL, VISUAL, Instrument


@dataclass(frozen=True, kw_only=True)
class TinyLlava(Instrument):
    """Boxes are hundredths of the image; a visual token is a patch of 16 pixels."""

    family = Llava15()
    special = ("<pad>", "<s>", "</s>", "<image>")
    end = "</s>"
    bos = "<s>"
    pieces = (
        re.escape(VICUNA), r" USER: ", r" ASSISTANT:", re.escape(wording.REGION),
        re.escape(wording.LETTER), r"\[", r", ", r"\]", r"[01]\.[0-9]{2}", r"[0-9]",
    )  # fmt: skip
    coordinates: ClassVar[tuple[str, ...]] = tuple(f"{step / 100:.2f}" for step in range(101))

    def corpus(self) -> Iterator[str]:
        for _ in range(2):
            yield f"{VICUNA} USER: \n"
            yield " ASSISTANT:"
        yield from super().corpus()

    def box_text(self, box: tuple[int, ...], label: str) -> str:
        return "[{:.2f}, {:.2f}, {:.2f}, {:.2f}]".format(*(value / SIDE for value in box))

    def image_positions(self, start: int) -> tuple[np.ndarray, int]:
        return start + np.arange(VISUAL)[None], start + VISUAL

    def image_processor(self) -> LlavaImageProcessorPil:
        square = {"height": SIDE, "width": SIDE}
        return LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": SIDE}, crop_size=square)

    def model(self) -> LlavaForConditionalGeneration:
        vision = CLIPVisionConfig(
            hidden_size=self.vision_hidden,
            intermediate_size=3 * self.vision_hidden,
            num_hidden_layers=self.vision_layers,
            num_attention_heads=self.vision_hidden // 32,
            image_size=SIDE,
            patch_size=CELL,
        )
        text = LlamaConfig(
            vocab_size=self.vocabulary(),
            hidden_size=self.hidden,
            intermediate_size=2 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=4,
            max_position_embeddings=4096,
            initializer_range=0.05,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        config = LlavaConfig(
            text_config=text,
            vision_config=vision,
            image_token_index=self.tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=VISUAL,
            tie_word_embeddings=True,
        )
        return LlavaForConditionalGeneration(config)
