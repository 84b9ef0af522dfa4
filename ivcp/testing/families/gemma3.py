"""Gemma 3: layers that attend to a window, and images that attend in both directions."""

from __future__ import annotations

from typing import Any

from ivcp.models.gemma3 import Gemma3
from ivcp.testing.small import END, SIGLIP, START, Draw, ImagePrompt, SmallFamily, between

SLIDING, FULL = "sliding_attention", "full_attention"
WINDOW = 1024


def image(_: Any, draw: Draw) -> ImagePrompt:
    """An image of 6 x 6 tokens of 2 x 2 patches each, whatever its size."""
    return between(36, {"pixel_values": draw(1, 3, 48, 48)})


FAMILY = SmallFamily(
    family=Gemma3,
    settings={
        "text_config": {
            "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW,
            "rope_parameters": {
                SLIDING: {"rope_type": "default", "rope_theta": 1e4},
                FULL: {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            },
        },
        "vision_config": {**SIGLIP, "image_size": 48},
        "mm_tokens_per_image": 36, "image_token_id": 90, "boi_token_index": START,
        "eoi_token_index": END, "tie_word_embeddings": False,
    },
    image=image,
    token_types=True,
    types_name="token_type_ids",
    layer_types=(SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL),
)  # fmt: skip
