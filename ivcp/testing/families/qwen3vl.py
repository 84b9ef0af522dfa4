"""Qwen3-VL: features of the tower enter behind layers 0, 1, 2 and 3."""

from __future__ import annotations

import torch

from ivcp.models.qwen3vl import Qwen3VL
from ivcp.testing.families import qwen2vl
from ivcp.testing.families.qwen2vl import IDS, MROPE, PATCHES, image
from ivcp.testing.small import END, START, VIDEO, Draw, ImagePrompt, SmallFamily


def video(frames: int, rows: int, columns: int, draw: Draw) -> ImagePrompt:
    """Each frame has a time stamp and markers of its own."""
    ids: list[int] = []
    tokens: list[int] = []
    size = rows * columns
    for frame in range(frames):
        ids += [20 + frame, 21 + frame, START]
        tokens += range(len(ids), len(ids) + size)
        ids += [VIDEO] * size + [END]
    inputs = qwen2vl.video(frames, rows, columns, draw).inputs
    return ImagePrompt(ids, torch.tensor(tokens), inputs)


FAMILY = SmallFamily(
    family=Qwen3VL,
    settings={
        "text_config": {"head_dim": 16, "rope_parameters": {**MROPE, "mrope_interleaved": True}},
        "vision_config": {
            **PATCHES, "depth": 5, "hidden_size": 32, "intermediate_size": 48,
            "out_hidden_size": 64, "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1, 2, 3],
        },
        **IDS,
    },
    image=image,
    video=video,
    token_types=True,
)  # fmt: skip
