"""LLaVA-NeXT."""

from __future__ import annotations

import torch
from transformers import LlavaNextConfig

from ivcp.models.llavanext import LlavaNext, anyres
from ivcp.testing.small import CLIP, IMAGE, LLAMA, Draw, ImagePrompt, SmallFamily, with_newlines

PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]


def image(size: tuple[int, int], draw: Draw) -> ImagePrompt:
    """An image of height and width `size`."""
    config = LlavaNextConfig(vision_config=CLIP, image_grid_pinpoints=PINPOINTS)
    inputs = {"pixel_values": draw(1, 5, 3, 24, 24), "image_sizes": torch.tensor([size])}
    return with_newlines(anyres(config, size, 0), inputs)


FAMILY = SmallFamily(
    family=LlavaNext,
    settings={
        "text_config": LLAMA,
        "vision_config": CLIP,
        "image_token_index": IMAGE,
        "image_grid_pinpoints": PINPOINTS,
    },
    image=image,
    images=((40, 60), (20, 20), (30, 64), (70, 21)),
)
