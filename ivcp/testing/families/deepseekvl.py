"""DeepSeek-VL."""

from __future__ import annotations

from ivcp.models.deepseekvl import DeepSeekVL
from ivcp.testing.small import IMAGE, LLAMA, SIGLIP, SmallFamily, square

FAMILY = SmallFamily(
    family=DeepSeekVL,
    settings={
        "text_config": LLAMA,
        "vision_config": SIGLIP,
        "image_token_id": IMAGE,
        "tie_word_embeddings": False,
    },
    image=square,
)
