"""LLaVA-1.5."""

from __future__ import annotations

from ivcp.models.llava15 import Llava15
from ivcp.testing.small import CLIP, IMAGE, LLAMA, SmallFamily, square

FAMILY = SmallFamily(
    family=Llava15,
    settings={"text_config": LLAMA, "vision_config": CLIP, "image_token_index": IMAGE},
    image=square,
)
