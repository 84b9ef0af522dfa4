"""InternVL, with the language model of version 3."""

from __future__ import annotations

from ivcp.models.internvl import InternVL
from ivcp.testing.small import IMAGE, VISION, Draw, ImagePrompt, SmallFamily, between


def image(shape: tuple[int, int], draw: Draw) -> ImagePrompt:
    """An image of `shape` tiles and their thumbnail, 16 tokens each."""
    tiles = shape[0] * shape[1]
    tiles += tiles > 1  # the thumbnail
    return between(16 * tiles, {"pixel_values": draw(tiles, 3, 32, 32)})


FAMILY = SmallFamily(
    family=InternVL,
    settings={
        "text_config": {"model_type": "qwen2"},
        "vision_config": {
            **VISION,
            "image_size": [32, 32],
            "patch_size": [4, 4],
            "initializer_range": 0.25,
        },
        "image_token_id": IMAGE,
        "image_seq_length": 16,
    },
    image=image,
    images=((2, 2), (1, 1), (3, 1), (1, 2)),
)
