"""Qwen3.5: layers with linear attention before, between and behind those with full attention."""

from __future__ import annotations

from ivcp.models.qwen35 import Qwen35
from ivcp.testing.families.qwen2vl import IDS, PATCHES, image
from ivcp.testing.families.qwen3vl import video
from ivcp.testing.small import SmallFamily

LINEAR, FULL = "linear_attention", "full_attention"

FAMILY = SmallFamily(
    family=Qwen35,
    settings={
        "text_config": {
            "head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 16, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25,
                "mrope_section": [2, 1, 1], "mrope_interleaved": True,
            },
        },
        "vision_config": {
            **PATCHES, "depth": 2, "hidden_size": 32, "intermediate_size": 48,
            "out_hidden_size": 64, "num_position_embeddings": 256,
        },
        **IDS,
    },
    image=image,
    video=video,
    cache_width=2 * 2 * 32,
    state_width=2 * (4 * 16 * 8 + (2 * 2 * 16 + 4 * 8) * 4),
    token_types=True,
    layer_types=(LINEAR, FULL, FULL, LINEAR, FULL, FULL),  # methods with three stages need these
)  # fmt: skip
