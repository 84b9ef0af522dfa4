"""Configurations of three models, at their published sizes or reduced, and inputs for them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from ivcp.testing import END, IMAGE, START, VIDEO

TEXT_BEFORE, TEXT_AFTER = 16, 48
TILE = 256
"""Visual tokens of one InternVL tile."""

PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen25vl": {  # Qwen/Qwen2.5-VL-7B-Instruct
        "model_type": "qwen2_5_vl",
        "text_config": {
            "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
            "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
            "max_position_embeddings": 128000, "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24],
            },
        },
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "out_hidden_size": 3584, "patch_size": 14, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
        },
    },
    "qwen3vl": {  # Qwen/Qwen3-VL-8B-Instruct
        "model_type": "qwen3_vl",
        "text_config": {
            "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288,
            "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
            "head_dim": 128, "max_position_embeddings": 262144, "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
        },
        "vision_config": {
            "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
            "out_hidden_size": 4096, "patch_size": 16, "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
    },
    "internvl": {  # OpenGVLab/InternVL2_5-8B; InternLM2.5 has the architecture of Llama
        "model_type": "internvl",
        "text_config": {
            "model_type": "llama", "vocab_size": 92553, "hidden_size": 4096,
            "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0},
        },
        "vision_config": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "attention_bias": True, "use_qk_norm": False,
        },
        "downsample_ratio": 0.5,
    },
}  # fmt: skip
REDUCED_TEXT = {
    "vocab_size": 1024, "hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 8,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
REDUCED_SECTIONS = {"qwen25vl": [8, 12, 12], "qwen3vl": [12, 10, 10]}
REDUCED_VISION: dict[str, dict[str, Any]] = {
    "qwen25vl": {
        "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
        "out_hidden_size": 384, "fullatt_block_indexes": [1],
    },
    "qwen3vl": {
        "depth": 4, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2,
        "out_hidden_size": 384, "deepstack_visual_indexes": [0, 1, 2],
    },
    "internvl": {
        "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128,
        "num_attention_heads": 2,
    },
}  # fmt: skip


def model_config(name: str, size: str, attention: str = "sdpa") -> Any:
    """Configuration of a model, `size` "full" as published or "reduced" to a few narrow layers."""
    published = PUBLISHED[name]
    text, vision = dict(published["text_config"]), dict(published["vision_config"])
    if size == "reduced":
        text |= REDUCED_TEXT
        vision |= REDUCED_VISION[name]
        if name in REDUCED_SECTIONS:
            sections = {"mrope_section": REDUCED_SECTIONS[name]}
            text["rope_parameters"] = text["rope_parameters"] | sections
    rest: dict[str, Any] = {"image_token_id": IMAGE, "tie_word_embeddings": False}
    if name == "internvl":
        rest["downsample_ratio"] = published["downsample_ratio"]
    else:
        rest |= {"vision_start_token_id": START, "vision_end_token_id": END}
        rest["video_token_id"] = VIDEO
    return AutoConfig.for_model(
        published["model_type"],
        text_config=text,
        vision_config=vision,
        attn_implementation=attention,
        **rest,
    )


def grid_side(tokens: int) -> int:
    """Side of the square grid whose number of visual tokens is nearest to `tokens`.

    >>> grid_side(400), grid_side(1600), grid_side(4096)
    (20, 40, 64)
    """
    return max(1, round(math.sqrt(tokens)))


def tile_count(tokens: int) -> int:
    """Tiles, thumbnail included, whose number of visual tokens is nearest to `tokens`.

    One tile has no thumbnail, two and more tiles have one: the number is never 2.

    >>> tile_count(400), tile_count(1024), tile_count(1600), tile_count(4096)
    (1, 4, 6, 16)
    """
    nearest: int = min((1, *range(3, tokens // TILE + 4)), key=lambda n: abs(TILE * n - tokens))
    return nearest


def random_inputs(name: str, model: Any, tokens: int, batch: int) -> tuple[dict[str, Tensor], int]:
    """Keyword arguments of `generate` with one image a sample, and the number of its visual tokens.

    Args:
        name: Which model it is.
        model: The model; gives device, dtype and sizes.
        tokens: Visual tokens of an image; the nearest possible number is taken.
        batch: Samples, all of one length.
    """
    generator = torch.Generator().manual_seed(tokens)
    vision = model.config.vision_config
    if name == "internvl":
        tiles = tile_count(tokens)
        visual, shape = TILE * tiles, (batch * tiles, 3, *vision.image_size)
    else:
        side = grid_side(tokens)
        visual, merge = side**2, vision.spatial_merge_size
        patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        shape = (batch * visual * merge**2, patch)
    text = torch.randint(100, 1000, (batch, TEXT_BEFORE + TEXT_AFTER), generator=generator)
    image = torch.tensor([START, *[IMAGE] * visual, END]).expand(batch, -1)
    ids = torch.cat([text[:, :TEXT_BEFORE], image, text[:, TEXT_BEFORE:]], 1)  # (B, S)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if name != "internvl":
        inputs["mm_token_type_ids"] = (ids == IMAGE).int()
        inputs["image_grid_thw"] = torch.tensor([[1, merge * side, merge * side]] * batch)
    inputs = {key: value.to(model.device) for key, value in inputs.items()}
    inputs["pixel_values"] = torch.randn(shape, device=model.device, dtype=model.dtype)
    return inputs, visual
