"""Sizes of published checkpoints, for models with random weights that need no download.

Source: each checkpoint's `config.json` on the hub. A test compares the number of parameters with
the number that the hub states for the checkpoint. Token ids are left out: they change no size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Settings = dict[str, Any]


def text(
    width: int, mlp: int, layers: int, heads: int, key_value_heads: int, **rest: Any
) -> Settings:
    """A language model's settings in the library's names."""
    return {
        "hidden_size": width, "intermediate_size": mlp, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": key_value_heads, **rest,
    }  # fmt: skip


def rotary(theta: float, **rest: Any) -> Settings:
    """Rotary positions without scaling."""
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **rest}}


QWEN2 = {
    **rotary(1e6, mrope_section=[16, 24, 24]), "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128000,
}  # fmt: skip
QWEN3 = {
    **rotary(5e6, mrope_section=[24, 20, 20], mrope_interleaved=True), "rms_norm_eps": 1e-6,
    "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144,
}  # fmt: skip
GLM4V: Settings = {
    "text_config": text(
        4096, 13696, 40, 32, 2,
        **rotary(1e4, partial_rotary_factor=0.5, mrope_section=[8, 12, 12]),
        vocab_size=151552, rms_norm_eps=1e-5, max_position_embeddings=65536,
    ),
    "vision_config": {
        "depth": 24, "hidden_size": 1536, "intermediate_size": 13696, "num_heads": 12,
        "out_hidden_size": 4096, "image_size": 336, "patch_size": 14,
    },
}  # fmt: skip
QWEN35 = {
    **rotary(
        1e7, mrope_section=[11, 11, 10], mrope_interleaved=True, partial_rotary_factor=0.25
    ),
    "rms_norm_eps": 1e-6, "head_dim": 256, "vocab_size": 248320, "linear_num_key_heads": 16,
    "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    "max_position_embeddings": 262144,
}  # fmt: skip
QWEN25_TOWER = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
    "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
}  # fmt: skip
QWEN2_TOWER = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}
QWEN3_TOWER = {"patch_size": 16, "num_heads": 16, "num_position_embeddings": 2304}
QWEN3_TOWER_24 = {**QWEN3_TOWER, "depth": 24, "hidden_size": 1024, "intermediate_size": 4096}
QWEN3_TOWER_27 = {**QWEN3_TOWER, "depth": 27, "hidden_size": 1152, "intermediate_size": 4304}
CLIP_TOWER = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
    "projection_dim": 768,
}  # fmt: skip
INTERNVIT = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "attention_bias": True, "use_qk_norm": False,
    "image_size": [448, 448], "patch_size": [14, 14],
}  # fmt: skip
INTERNVIT_6B = {
    "hidden_size": 3200, "intermediate_size": 12800, "num_hidden_layers": 45,
    "num_attention_heads": 25, "attention_bias": False, "use_qk_norm": True,
    "norm_type": "rms_norm", "image_size": [448, 448], "patch_size": [14, 14],
}  # fmt: skip
VICUNA = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096}
QWEN2_TEXT = {**rotary(1e6), "model_type": "qwen2", "vocab_size": 151674, "rms_norm_eps": 1e-6}
QWEN3_TEXT = {
    **rotary(1e6), "model_type": "qwen3", "vocab_size": 151936, "rms_norm_eps": 1e-6,
    "head_dim": 128, "max_position_embeddings": 40960,
}  # fmt: skip
VICUNA_7B = text(4096, 11008, 32, 32, 32, **VICUNA)
VICUNA_13B = text(5120, 13824, 40, 40, 40, **VICUNA)
MISTRAL_7B = text(
    4096, 14336, 32, 32, 8, **rotary(1e6), model_type="mistral", vocab_size=32064,
    sliding_window=None, max_position_embeddings=32768,
)  # fmt: skip
GEMMA3 = {
    "vocab_size": 262208, "sliding_window": 1024, "max_position_embeddings": 131072,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
    },
}  # fmt: skip
GEMMA3_REST: Settings = {
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 896,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "mm_tokens_per_image": 256,
    "tie_word_embeddings": True,
}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
ONEVISION: Settings = {
    "vision_config": {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
        "num_hidden_layers": 26, "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
        "vision_use_head": False,
    },
    "vision_aspect_ratio": "anyres_max_9",
}  # fmt: skip
ONEVISION_TEXT = {
    **rotary(1e6), "model_type": "qwen2", "vocab_size": 152000, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768,
}  # fmt: skip
DEEPSEEK2: Settings = {
    "candidate_resolutions": [
        [384 * wide, 384 * high] for wide in range(1, 10) for high in range(1, 10)
        if wide * high <= 9
    ],
    "global_view_pos": "head", "tile_tag": "2D",
    "vision_config": {
        "layers": 27, "mlp_ratio": 3.7362, "model_name": "siglip_so400m_patch14_384",
        "patch_size": 14, "width": 1152,
    },
}  # fmt: skip
DEEPSEEK2_TEXT = {
    "first_k_dense_replace": 1, "kv_lora_rank": 512, "max_position_embeddings": 4096, "n_group": 1,
    "n_shared_experts": 2, "num_experts_per_tok": 6, "q_lora_rank": None, "topk_group": 1,
}  # fmt: skip
SO400M = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "patch_size": 14,
}  # fmt: skip
SIGLIP_512 = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "patch_size": 16, "image_size": 512,
}  # fmt: skip


def smolvlm(size: str, vocabulary: int = 49280, **rest: Any) -> Settings:
    """SmolVLM or SmolVLM2, whose language models are SmolLM2's."""
    common = {"model_type": "llama", "vocab_size": vocabulary, "rms_norm_eps": 1e-5}
    common |= {"max_position_embeddings": 8192, **rotary(rest.pop("theta", 1e5)), **rest}
    small = {"vision_config": SIGLIP_512, "scale_factor": 4}
    return {
        "256M": {"text_config": text(576, 1536, 30, 9, 3, **common), **small},
        "500M": {"text_config": text(960, 2560, 32, 15, 5, head_dim=64, **common), **small},
        "2.2B": {
            "text_config": text(2048, 8192, 24, 32, 32, **common),
            "vision_config": {**SO400M, "image_size": 384}, "scale_factor": 3,
        },
    }[size]  # fmt: skip


PUBLISHED: Mapping[str, Settings] = {
    "Qwen/Qwen2-VL-2B-Instruct": {
        "text_config": text(1536, 8960, 28, 12, 2, vocab_size=151936, **QWEN2),
        "vision_config": {**QWEN2_TOWER, "hidden_size": 1536}, "tie_word_embeddings": True,
    },
    "Qwen/Qwen2-VL-7B-Instruct": {
        "text_config": text(3584, 18944, 28, 28, 4, vocab_size=152064, **QWEN2),
        "vision_config": {**QWEN2_TOWER, "hidden_size": 3584},
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": {
        "text_config": text(2048, 11008, 36, 16, 2, vocab_size=151936, **QWEN2),
        "vision_config": {**QWEN25_TOWER, "out_hidden_size": 2048}, "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        "text_config": text(3584, 18944, 28, 28, 4, vocab_size=152064, **QWEN2),
        "vision_config": {**QWEN25_TOWER, "out_hidden_size": 3584},
    },
    "Qwen/Qwen3-VL-4B-Instruct": {
        "text_config": text(2560, 9728, 36, 32, 8, **QWEN3),
        "vision_config": {
            **QWEN3_TOWER_24, "out_hidden_size": 2560, "deepstack_visual_indexes": [5, 11, 17],
        },
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-VL-8B-Instruct": {
        "text_config": text(4096, 12288, 36, 32, 8, **QWEN3),
        "vision_config": {
            **QWEN3_TOWER_27, "out_hidden_size": 4096, "deepstack_visual_indexes": [8, 16, 24],
        },
    },
    "zai-org/GLM-4.1V-9B-Thinking": GLM4V, "zai-org/GLM-4.6V-Flash": GLM4V,
    "Qwen/Qwen3.5-0.8B": {
        "text_config": text(1024, 3584, 24, 8, 2, linear_num_value_heads=16, **QWEN35),
        "vision_config": {
            **QWEN3_TOWER, "depth": 12, "hidden_size": 768, "intermediate_size": 3072,
            "num_heads": 12, "out_hidden_size": 1024,
        },
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3.5-2B": {
        "text_config": text(2048, 6144, 24, 8, 2, linear_num_value_heads=16, **QWEN35),
        "vision_config": {**QWEN3_TOWER_24, "out_hidden_size": 2048}, "tie_word_embeddings": True,
    },
    "Qwen/Qwen3.5-4B": {
        "text_config": text(2560, 9216, 32, 16, 4, linear_num_value_heads=32, **QWEN35),
        "vision_config": {**QWEN3_TOWER_24, "out_hidden_size": 2560}, "tie_word_embeddings": True,
    },
    "Qwen/Qwen3.5-9B": {
        "text_config": text(4096, 12288, 32, 16, 4, linear_num_value_heads=32, **QWEN35),
        "vision_config": {**QWEN3_TOWER_27, "out_hidden_size": 4096},
    },
    "Qwen/Qwen3.5-27B": {
        "text_config": text(5120, 17408, 64, 24, 4, linear_num_value_heads=48, **QWEN35),
        "vision_config": {**QWEN3_TOWER_27, "out_hidden_size": 5120},
    },
    "google/gemma-3-4b-it": {
        "text_config": text(2560, 10240, 34, 8, 4, head_dim=256, **GEMMA3), **GEMMA3_REST,
    },
    "google/gemma-3-12b-it": {
        "text_config": text(3840, 15360, 48, 16, 8, head_dim=256, **GEMMA3), **GEMMA3_REST,
    },
    "google/gemma-3-27b-it": {
        "text_config": text(
            5376, 21504, 62, 32, 16, head_dim=128, query_pre_attn_scalar=168, **GEMMA3
        ),
        **GEMMA3_REST,
    },
    "llava-hf/llava-1.5-7b-hf": {"text_config": VICUNA_7B, "vision_config": CLIP_TOWER},
    "llava-hf/llava-1.5-13b-hf": {"text_config": VICUNA_13B, "vision_config": CLIP_TOWER},
    "llava-hf/llava-v1.6-vicuna-7b-hf": {
        "text_config": VICUNA_7B, "vision_config": CLIP_TOWER, "image_grid_pinpoints": PINPOINTS,
    },
    "llava-hf/llava-v1.6-vicuna-13b-hf": {
        "text_config": VICUNA_13B, "vision_config": CLIP_TOWER, "image_grid_pinpoints": PINPOINTS,
    },
    "llava-hf/llava-v1.6-mistral-7b-hf": {
        "text_config": MISTRAL_7B, "vision_config": CLIP_TOWER, "image_grid_pinpoints": PINPOINTS,
    },
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": {
        **ONEVISION, "text_config": text(896, 4864, 24, 14, 2, **ONEVISION_TEXT),
        "tie_word_embeddings": True,
    },
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": {
        **ONEVISION, "text_config": text(3584, 18944, 28, 28, 4, **ONEVISION_TEXT),
    },
    "llava-hf/llava-onevision-qwen2-72b-ov-hf": {
        **ONEVISION, "text_config": text(8192, 29568, 80, 64, 8, **ONEVISION_TEXT),
    },
    "OpenGVLab/InternVL2_5-8B": {  # InternLM2.5 has the architecture of Llama
        "text_config": text(
            4096, 14336, 32, 32, 8, model_type="llama", vocab_size=92553, rms_norm_eps=1e-5,
            max_position_embeddings=32768,
            rope_parameters={"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0},
        ),
        "vision_config": INTERNVIT, "downsample_ratio": 0.5,
    },
    "OpenGVLab/InternVL3-2B-hf": {
        "text_config": text(1536, 8960, 28, 12, 2, **QWEN2_TEXT), "vision_config": INTERNVIT,
    },
    "OpenGVLab/InternVL3-8B-hf": {
        "text_config": text(3584, 18944, 28, 28, 4, **QWEN2_TEXT), "vision_config": INTERNVIT,
    },
    "OpenGVLab/InternVL3_5-1B-HF": {
        "text_config": text(1024, 3072, 28, 16, 8, **QWEN3_TEXT), "vision_config": INTERNVIT,
    },
    "OpenGVLab/InternVL3_5-2B-HF": {
        "text_config": text(2048, 6144, 28, 16, 8, **QWEN3_TEXT), "vision_config": INTERNVIT,
    },
    "OpenGVLab/InternVL3_5-4B-HF": {
        "text_config": text(2560, 9728, 36, 32, 8, **QWEN3_TEXT), "vision_config": INTERNVIT,
    },
    "OpenGVLab/InternVL3_5-8B-HF": {
        "text_config": text(4096, 12288, 36, 32, 8, **QWEN3_TEXT), "vision_config": INTERNVIT,
    },
    "OpenGVLab/InternVL3_5-14B-HF": {
        "text_config": text(5120, 17408, 40, 40, 8, **QWEN3_TEXT), "vision_config": INTERNVIT,
    },
    "OpenGVLab/InternVL3_5-38B-HF": {
        "text_config": text(5120, 25600, 64, 64, 8, **QWEN3_TEXT), "vision_config": INTERNVIT_6B,
    },
    "OpenGVLab/InternVL3_5-30B-A3B-HF": {
        "text_config": text(
            2048, 6144, 48, 32, 4, **{**QWEN3_TEXT, "model_type": "qwen3_moe"},
            moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, norm_topk_prob=True,
        ),
        "vision_config": INTERNVIT,
    },
    "deepseek-community/deepseek-vl-1.3b-chat": {
        "text_config": text(2048, 5632, 24, 16, 16, model_type="llama", vocab_size=102400),
        "vision_config": {
            "model_type": "siglip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
            "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 384,
            "patch_size": 16, "vision_use_head": False,
        },
    },
    "deepseek-ai/deepseek-vl2-small": {
        **DEEPSEEK2,
        "language_config": text(
            2048, 10944, 27, 16, 16, **DEEPSEEK2_TEXT, moe_intermediate_size=1408,
            n_routed_experts=64, topk_method="greedy", vocab_size=102400,
        ),
        "projector_config": {"n_embed": 2048},
    },
    "deepseek-ai/deepseek-vl2": {
        **DEEPSEEK2,
        "language_config": text(
            2560, 12288, 30, 32, 32, **DEEPSEEK2_TEXT, moe_intermediate_size=1536,
            n_routed_experts=72, topk_method="noaux_tc", scoring_func="sigmoid",
            norm_topk_prob=True, routed_scaling_factor=2.0, vocab_size=129280,
        ),
        "projector_config": {"n_embed": 2560},
    },
    "HuggingFaceM4/Idefics3-8B-Llama3": {
        "text_config": text(
            4096, 14336, 32, 32, 8, **rotary(5e5), model_type="llama", vocab_size=128259,
            rms_norm_eps=1e-5, max_position_embeddings=131072,
        ),
        "vision_config": {**SO400M, "image_size": 364}, "scale_factor": 2,
    },
    "HuggingFaceTB/SmolVLM-256M-Instruct": smolvlm("256M"),
    "HuggingFaceTB/SmolVLM-500M-Instruct": smolvlm("500M"),
    "HuggingFaceTB/SmolVLM-Instruct": smolvlm(
        "2.2B", 49155, theta=273768.0, max_position_embeddings=16384
    ),
    "HuggingFaceTB/SmolVLM2-256M-Video-Instruct": smolvlm("256M"),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": smolvlm("500M"),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": smolvlm("2.2B", theta=130000.0),
}  # fmt: skip
"""Settings of a model's configuration, by the hub id of its checkpoint."""
