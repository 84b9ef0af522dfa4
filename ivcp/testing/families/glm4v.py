"""GLM-4.1V: videos are made of image tokens, a second behind each frame."""

from __future__ import annotations

import torch

from ivcp.models.glm4v import Glm4V
from ivcp.testing.families import qwen2vl
from ivcp.testing.families.qwen2vl import PATCHES, image
from ivcp.testing.small import (
    END,
    IMAGE,
    START,
    VIDEO,
    VIDEO_END,
    VIDEO_START,
    Draw,
    ImagePrompt,
    SmallFamily,
)

MROPE = {
    "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5,
    "mrope_section": [2, 1, 1],
}  # fmt: skip


def video(frames: int, rows: int, columns: int, draw: Draw) -> ImagePrompt:
    """Each frame between the marks of an image, all of them between those of a video."""
    ids = [VIDEO_START]
    tokens: list[int] = []
    size = rows * columns
    for frame in range(frames):
        ids.append(START)
        tokens += range(len(ids), len(ids) + size)
        ids += [IMAGE] * size + [END, 20 + frame]
    inputs = qwen2vl.video(frames, rows, columns, draw).inputs
    return ImagePrompt([*ids, VIDEO_END], torch.tensor(tokens), inputs)


FAMILY = SmallFamily(
    family=Glm4V,
    settings={
        "text_config": {"rope_parameters": MROPE},
        "vision_config": {
            **PATCHES, "depth": 2, "hidden_size": 32, "intermediate_size": 48,
            "out_hidden_size": 64, "image_size": 24,
        },
        "image_token_id": IMAGE, "video_token_id": VIDEO, "image_start_token_id": START,
        "image_end_token_id": END, "video_start_token_id": VIDEO_START,
        "video_end_token_id": VIDEO_END, "tie_word_embeddings": False,
    },
    image=image,
    video=video,
    token_types=True,
)  # fmt: skip
