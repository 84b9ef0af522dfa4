"""Qwen2.5-VL: one layer of the tower attends in windows, one to the whole image."""

from __future__ import annotations

from ivcp.models.qwen25vl import Qwen25VL
from ivcp.testing.families.qwen2vl import IDS, MROPE, PATCHES, image, video
from ivcp.testing.small import SmallFamily

FAMILY = SmallFamily(
    family=Qwen25VL,
    settings={
        "text_config": {"rope_parameters": MROPE},
        "vision_config": {
            **PATCHES, "depth": 2, "hidden_size": 32, "intermediate_size": 48,
            "out_hidden_size": 64, "window_size": 16, "fullatt_block_indexes": [1],
        },
        **IDS,
    },
    image=image,
    video=video,
    token_types=True,
)  # fmt: skip
