"""LLaVA-OneVision: at most two tiles of tokens beside the whole view, as in no checkpoint."""

from __future__ import annotations

from functools import partial

import torch
from transformers import LlavaOnevisionConfig

from ivcp.models.llava_onevision import LlavaOnevision, image_layout, video_layout
from ivcp.testing.small import (
    IMAGE,
    SIGLIP,
    VIDEO,
    Draw,
    ImagePrompt,
    SmallFamily,
    with_newlines,
)

PINPOINTS = [[24 * high, 24 * wide] for high in (1, 2, 3) for wide in (1, 2, 3)]
SETTINGS = {
    "text_config": {"model_type": "qwen2"},
    "vision_config": SIGLIP,
    "image_token_index": IMAGE,
    "video_token_index": VIDEO,
    "image_grid_pinpoints": PINPOINTS,
    "vision_aspect_ratio": "anyres_max_2",
}


def image(alone: bool, size: tuple[int, int], draw: Draw) -> ImagePrompt:
    """An image of height and width `size`, alone in its prompt or not."""
    inputs = {"pixel_values": draw(1, 10, 3, 24, 24), "image_sizes": torch.tensor([size])}
    return with_newlines(image_layout(LlavaOnevisionConfig(**SETTINGS), size, alone, 0), inputs)


def video(frames: int, _rows: int, _columns: int, draw: Draw) -> ImagePrompt:
    """Frames of 3 x 3 tokens, whatever is asked for."""
    layout = video_layout(LlavaOnevisionConfig(**SETTINGS), frames, 0)
    inputs = {"pixel_values_videos": draw(1, frames, 3, 24, 24)}
    return with_newlines(layout, inputs, VIDEO)


FAMILY = SmallFamily(
    family=LlavaOnevision,
    settings=SETTINGS,
    image=partial(image, True),
    several=partial(image, False),
    images=((30, 64), (20, 20), (50, 64), (20, 40)),
    video=video,
)
