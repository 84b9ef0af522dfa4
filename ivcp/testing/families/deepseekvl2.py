"""DeepSeek-VL2: latent attention and routed experts."""

from __future__ import annotations

import torch

from ivcp.models.deepseekvl2 import DeepSeekVL2, views
from ivcp.testing.small import IMAGE, VISION, Draw, ImagePrompt, SmallFamily, with_newlines


def image(crop: tuple[int, int], draw: Draw) -> ImagePrompt:
    """A global view and `crop` tiles in width and height, 3 x 3 tokens each."""
    pixels = draw(1 + crop[0] * crop[1], 3, 24, 24)
    inputs = {"pixel_values": pixels, "images_spatial_crop": torch.tensor([crop])}
    return with_newlines(views(0, crop, 3), inputs)


FAMILY = SmallFamily(
    family=DeepSeekVL2,
    settings={
        "text_config": {
            "num_key_value_heads": 4, "kv_lora_rank": 24, "q_lora_rank": None,
            "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
            "moe_intermediate_size": 32, "first_k_dense_replace": 1, "topk_method": "greedy",
            "routed_scaling_factor": 1.0, "n_routed_experts": 4, "n_shared_experts": 1,
            "num_experts_per_tok": 2,
        },
        "vision_config": {**VISION, "vision_use_head": False},
        "image_token_id": IMAGE,
        "candidate_resolutions": [[24, 24], [48, 24], [24, 48], [48, 48]],
    },
    image=image,
    images=((2, 2), (1, 1), (2, 1), (1, 2)),
    cache_width=24 + 16,
)  # fmt: skip
