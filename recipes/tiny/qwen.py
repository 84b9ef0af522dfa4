"""The packaged small Qwen2.5-VL, with M-RoPE: `model=tiny`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from ivcp.datasets.scenes import SIDE
from ivcp.models.qwen25vl import Qwen25VL
from recipes.tiny.instrument import GRID, VISUAL, Instrument


@dataclass(frozen=True, kw_only=True)
class TinyQwen(Instrument):
    """Boxes are JSON with absolute pixels; a visual token is merged from 2 x 2 patches."""

    family = Qwen25VL()
    special = (
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
        "<|image_pad|>", "<|video_pad|>",
    )  # fmt: skip
    end = "<|im_end|>"
    pieces = (
        r'\{"bbox_2d": \[', r'\], "label": "', r'"\}', r", ", r"[0-9]{1,3}",
        r" and output the bbox coordinates in JSON format\.", r" Please answer yes or no\.",
        r"Please select the correct answer from the options above\.",
    )  # fmt: skip
    coordinates: ClassVar[tuple[str, ...]] = tuple(map(str, range(256)))
    template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
        "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )

    def corpus(self) -> Iterator[str]:
        for number in itertools.chain.from_iterable(itertools.repeat(range(1000), 4)):
            yield str(number)
        for letter, word in itertools.product("ABCD", ("assistant", "user", "system", "Yes", "No")):
            yield f"{letter}. "
            yield word

    def box_text(self, box: tuple[int, ...], label: str) -> str:
        x1, y1, x2, y2 = box
        return f'{{"bbox_2d": [{x1}, {y1}, {x2}, {y2}], "label": "{label}"}}'

    def image_positions(self, start: int) -> tuple[np.ndarray, int]:
        row, column = np.divmod(np.arange(VISUAL), GRID)
        positions = start + np.stack([np.zeros(VISUAL, dtype=int), row, column])
        return positions, start + GRID  # text goes on behind the largest image position

    def image_processor(self) -> Qwen2VLImageProcessorPil:
        return Qwen2VLImageProcessorPil(
            patch_size=8,
            merge_size=2,
            temporal_patch_size=2,
            size={"shortest_edge": 32 * 32, "longest_edge": 4 * SIDE * SIDE},
        )

    def model(self) -> Qwen2_5_VLForConditionalGeneration:
        token = self.tokenizer.convert_tokens_to_ids
        config = Qwen2_5_VLConfig(
            text_config={
                "vocab_size": self.vocabulary(),
                "hidden_size": self.hidden,
                "intermediate_size": 2 * self.hidden,
                "num_hidden_layers": self.layers,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "initializer_range": 0.05,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10_000.0,
                    "mrope_section": [4, 6, 6],
                },
                "tie_word_embeddings": True,
                "bos_token_id": None,
                "eos_token_id": token("<|im_end|>"),
                "pad_token_id": token("<|endoftext|>"),
            },
            vision_config={
                "depth": self.vision_layers,
                "hidden_size": self.vision_hidden,
                "intermediate_size": 3 * self.vision_hidden,
                "num_heads": 2,
                "patch_size": 8,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "window_size": 64,
                "fullatt_block_indexes": [self.vision_layers - 1],
                "out_hidden_size": self.hidden,
                "initializer_range": 0.05,
            },
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
            tie_word_embeddings=True,
        )
        return Qwen2_5_VLForConditionalGeneration(config)
