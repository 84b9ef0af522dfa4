"""Qwen2-VL, and what the small models of all Qwen-VL families share."""

from __future__ import annotations

import torch

from ivcp.models.qwen2vl import Qwen2VL
from ivcp.testing.small import END, IMAGE, START, VIDEO, Draw, ImagePrompt, SmallFamily, between

MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
IDS = {
    "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START,
    "vision_end_token_id": END, "tie_word_embeddings": False,
}  # fmt: skip
PATCHES = {
    "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
    "initializer_range": 0.25,
}  # fmt: skip


def image(grid: tuple[int, int], draw: Draw) -> ImagePrompt:
    """An image of `grid` tokens, each of 2 x 2 patches."""
    rows, columns = grid
    pixels = draw(4 * rows * columns, 96)
    thw = torch.tensor([[1, 2 * rows, 2 * columns]])
    return between(rows * columns, {"pixel_values": pixels, "image_grid_thw": thw})


def video(frames: int, rows: int, columns: int, draw: Draw) -> ImagePrompt:
    """All frames in one run of tokens."""
    count = frames * rows * columns
    inputs = {
        "pixel_values_videos": draw(4 * count, 96),
        "video_grid_thw": torch.tensor([[frames, 2 * rows, 2 * columns]]),
    }
    return ImagePrompt([START, *[VIDEO] * count, END], 1 + torch.arange(count), inputs)


FAMILY = SmallFamily(
    family=Qwen2VL,
    settings={
        "text_config": {"rope_parameters": MROPE},
        "vision_config": {**PATCHES, "depth": 2, "embed_dim": 32, "hidden_size": 64},
        **IDS,
    },
    image=image,
    video=video,
    token_types=True,
)
