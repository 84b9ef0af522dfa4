"""Small random models with the real architectures, and inputs for them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from ivcp.models.backports.deepseek_vl2 import DeepseekVL2ForConditionalGeneration
from ivcp.models.backports.deepseek_vl2_config import DeepseekVL2Config
from ivcp.models.deepseekvl2 import views
from ivcp.models.llavanext import anyres
from recipes.tiny.build import build_model, build_tokenizer, save

IMAGE, VIDEO, START, END, PAD, EOS = 90, 91, 92, 93, 0, 1

TEXT = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    "initializer_range": 0.25, "bos_token_id": 2, "eos_token_id": EOS, "pad_token_id": PAD,
    "tie_word_embeddings": False,
}  # fmt: skip
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
QWEN_IDS = {
    "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START,
    "vision_end_token_id": END, "tie_word_embeddings": False,
}  # fmt: skip
CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 24, "patch_size": 4,
    "projection_dim": 32,
}  # fmt: skip
PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]


def random_qwen2vl(backend: str = "sdpa", layers: int = 6) -> Any:
    """Qwen2-VL with grouped queries."""
    config = Qwen2VLConfig(
        text_config={**TEXT, "num_hidden_layers": layers, "rope_parameters": MROPE},
        vision_config={
            "depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "initializer_range": 0.25,
        },
        **QWEN_IDS, attn_implementation=backend,
    )  # fmt: skip
    return _ready(Qwen2VLForConditionalGeneration, config)


def random_qwen25vl(backend: str = "sdpa", layers: int = 6) -> Any:
    """Qwen2.5-VL with grouped queries, window and full attention in the tower."""
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, "num_hidden_layers": layers, "rope_parameters": MROPE},
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 16,
            "fullatt_block_indexes": [1], "out_hidden_size": 64, "initializer_range": 0.25,
        },
        **QWEN_IDS, attn_implementation=backend,
    )  # fmt: skip
    return _ready(Qwen2_5_VLForConditionalGeneration, config)


def random_qwen3vl(backend: str = "sdpa", layers: int = 6) -> Any:
    """Qwen3-VL with grouped queries and features that enter behind layers 0, 1, 2 and 3."""
    config = Qwen3VLConfig(
        text_config={
            **TEXT, "num_hidden_layers": layers, "head_dim": 16,
            "rope_parameters": {**MROPE, "mrope_interleaved": True},
        },
        vision_config={
            "depth": 5, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
            "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "out_hidden_size": 64, "num_position_embeddings": 256, "initializer_range": 0.25,
            "deepstack_visual_indexes": [0, 1, 2, 3],
        },
        **QWEN_IDS, attn_implementation=backend,
    )  # fmt: skip
    return _ready(Qwen3VLForConditionalGeneration, config)


def random_llava15(backend: str = "sdpa", layers: int = 6) -> Any:
    """LLaVA-1.5 with 36 tokens an image and grouped queries."""
    config = LlavaConfig(
        text_config={"model_type": "llama", **TEXT, "num_hidden_layers": layers},
        vision_config=CLIP, image_token_index=IMAGE, attn_implementation=backend,
    )  # fmt: skip
    return _ready(LlavaForConditionalGeneration, config)


def random_llavanext(backend: str = "sdpa", layers: int = 6) -> Any:
    """LLaVA-NeXT with 36 tokens a tile and grouped queries."""
    config = LlavaNextConfig(
        text_config={"model_type": "llama", **TEXT, "num_hidden_layers": layers},
        vision_config=CLIP, image_token_index=IMAGE, image_grid_pinpoints=PINPOINTS,
        attn_implementation=backend,
    )  # fmt: skip
    return _ready(LlavaNextForConditionalGeneration, config)


def random_internvl(backend: str = "sdpa", layers: int = 6) -> Any:
    """InternVL with 16 tokens a tile and the language model of version 3."""
    config = InternVLConfig(
        text_config={"model_type": "qwen2", **TEXT, "num_hidden_layers": layers},
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": [32, 32], "patch_size": [4, 4],
        },
        image_token_id=IMAGE, image_seq_length=16, attn_implementation=backend,
    )  # fmt: skip
    return _ready(InternVLForConditionalGeneration, config)


def random_deepseekvl(backend: str = "sdpa", layers: int = 6) -> Any:
    """DeepSeek-VL with 36 tokens an image."""
    config = DeepseekVLConfig(
        text_config={"model_type": "llama", **TEXT, "num_hidden_layers": layers},
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 24, "patch_size": 4,
            "vision_use_head": False,
        },
        image_token_id=IMAGE, tie_word_embeddings=False, attn_implementation=backend,
    )  # fmt: skip
    return _ready(DeepseekVLForConditionalGeneration, config)


def random_deepseekvl2(backend: str = "sdpa", layers: int = 6) -> Any:
    """DeepSeek-VL2 with latent attention, routed experts, and 9 tokens a tile."""
    experts = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2}
    config = DeepseekVL2Config(
        text_config={
            **TEXT, "num_hidden_layers": layers, "num_key_value_heads": 4, "kv_lora_rank": 24,
            "q_lora_rank": None, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
            "moe_intermediate_size": 32, "first_k_dense_replace": 1, "topk_method": "greedy",
            "routed_scaling_factor": 1.0, **experts,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 24, "patch_size": 4, "vision_use_head": False,
        },
        image_token_id=IMAGE, candidate_resolutions=[[24, 24], [48, 24], [24, 48], [48, 48]],
        attn_implementation=backend,
    )  # fmt: skip
    return _ready(DeepseekVL2ForConditionalGeneration, config)


def _ready(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    model = kind(config).eval()
    model.generation_config.pad_token_id = PAD
    return model


@dataclass(frozen=True)
class Picture:
    """An image of a prompt.

    Attributes:
        ids: Its tokens, what frames it included.
        visual: Which of them are visual tokens.
        inputs: Its part of the model's inputs.
        grids: Kind, rows and columns of each of its grids.
    """

    ids: list[int]
    visual: list[bool]
    inputs: dict[str, Tensor]
    grids: list[tuple[str, int, int]]


Draw = Callable[..., Tensor]


def _qwen(grid: tuple[int, int], draw: Draw) -> Picture:
    rows, columns = grid
    count = rows * columns
    return Picture(
        [START, *[IMAGE] * count, END],
        [False, *[True] * count, False],
        {
            "pixel_values": draw(4 * count, 96),
            "image_grid_thw": torch.tensor([[1, 2 * rows, 2 * columns]]),
        },
        [("image", rows, columns)],
    )


def _square(_: Any, draw: Draw) -> Picture:
    pixels = {"pixel_values": draw(1, 3, 24, 24)}
    return Picture([IMAGE] * 36, [True] * 36, pixels, [("image", 6, 6)])


def _anyres(size: tuple[int, int], draw: Draw) -> Picture:
    config = LlavaNextConfig(vision_config=CLIP, image_grid_pinpoints=PINPOINTS)
    layout = anyres(config, size, 0)
    visual = torch.zeros(layout.stop + 1, dtype=torch.bool)
    visual[layout.tokens] = True
    inputs = {"pixel_values": draw(1, 5, 3, 24, 24), "image_sizes": torch.tensor([size])}
    rows = (visual[36:].long().diff() == -1).sum()  # each ends with a newline
    grids = [("thumbnail", 6, 6), ("tile", int(rows), int(visual[36:].sum() // rows))]
    return Picture([IMAGE] * len(visual), visual.tolist(), inputs, grids)


def _tiles(shape: tuple[int, int], draw: Draw) -> Picture:
    tiles = shape[0] * shape[1]
    grids = [("tile", 4, 4)] * tiles + [("thumbnail", 4, 4)] if tiles > 1 else [("image", 4, 4)]
    tiles = len(grids)
    return Picture(
        [START, *[IMAGE] * (16 * tiles), END],
        [False, *[True] * (16 * tiles), False],
        {"pixel_values": draw(tiles, 3, 32, 32)},
        grids,
    )


def _views(crop: tuple[int, int], draw: Draw) -> Picture:
    layout = views(0, crop, 3)
    visual = torch.zeros(layout.stop + 1, dtype=torch.bool)
    visual[layout.tokens] = True
    inputs = {
        "pixel_values": draw(1 + crop[0] * crop[1], 3, 24, 24),
        "images_spatial_crop": torch.tensor([crop]),
    }
    grids = [("thumbnail", 3, 3), ("tile", 3 * crop[1], 3 * crop[0])]
    return Picture([IMAGE] * len(visual), visual.tolist(), inputs, grids)


@dataclass(frozen=True)
class Small:
    """A family in tests.

    Attributes:
        model: Builds the random model, given an attention backend.
        picture: Builds one image of a prompt.
        images: Four images of different sizes.
        slot: Numbers that a cache keeps of a token in a layer.
    """

    model: Callable[..., Any]
    picture: Callable[[Any, Draw], Picture]
    images: tuple[Any, Any, Any, Any]
    slot: int = 2 * 2 * 16


GRIDS = ((6, 9), (4, 5), (7, 3), (8, 8))
SMALL = {
    "qwen2vl": Small(random_qwen2vl, _qwen, GRIDS),
    "qwen25vl": Small(random_qwen25vl, _qwen, GRIDS),
    "qwen3vl": Small(random_qwen3vl, _qwen, GRIDS),
    "llava15": Small(random_llava15, _square, GRIDS),
    "llavanext": Small(random_llavanext, _anyres, ((40, 60), (20, 20), (30, 64), (70, 21))),
    "internvl": Small(random_internvl, _tiles, ((2, 2), (1, 1), (3, 1), (1, 2))),
    "deepseekvl": Small(random_deepseekvl, _square, GRIDS),
    "deepseekvl2": Small(
        random_deepseekvl2, _views, ((2, 2), (1, 1), (2, 1), (1, 2)), slot=24 + 16
    ),
}


@dataclass
class Prompts:
    """A left-padded batch for a random model.

    Attributes:
        inputs: Keyword arguments of `generate`.
        lengths: Real length of each row.
        tokens: For each row, the prompt indices of each image's visual tokens, padding not counted.
        grids: For each row, kind, rows and columns of each image's grids.
        samples: What the rows were built from.
        family: Key of `SMALL`.
    """

    inputs: dict[str, Tensor]
    lengths: list[int]
    tokens: list[list[Tensor]]
    grids: list[list[list[tuple[str, int, int]]]]
    samples: tuple[list[Any], ...]
    family: str

    @property
    def spans(self) -> list[list[tuple[int, int]]]:
        """For each row, (first token, number of tokens) of each image."""
        return [[(int(image[0]), len(image)) for image in images] for images in self.tokens]


def prompts(*samples: list[Any], family: str = "qwen25vl") -> Prompts:
    """Build a batch; a sample is a list of text lengths (int) and images as the family has them.

    Equal samples get equal tokens and pixels, whatever stands beside them.
    """
    rows, tokens, grids, parts = [], [], [], []
    for sample in samples:
        generator = torch.Generator().manual_seed(zlib.crc32(repr(sample).encode()))

        def draw(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(shape, generator=generator)

        ids: list[int] = []
        tokens.append([])
        grids.append([])
        for part in sample:
            if isinstance(part, int):
                ids += torch.randint(3, 80, (part,), generator=generator).tolist()
                continue
            picture = SMALL[family].picture(part, draw)
            tokens[-1].append(torch.tensor(picture.visual).nonzero()[:, 0] + len(ids))
            grids[-1].append(picture.grids)
            ids += picture.ids
            parts.append(picture.inputs)
        rows.append(torch.tensor(ids))
    longest = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), longest), PAD)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        input_ids[number, longest - len(row) :] = row
        mask[number, longest - len(row) :] = 1
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    if family.startswith("qwen"):
        inputs["mm_token_type_ids"] = (input_ids == IMAGE).int()
    if parts:
        inputs |= {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return Prompts(inputs, [len(row) for row in rows], tokens, grids, samples, family)


def single(batch: Prompts, number: int) -> dict[str, Tensor]:
    """One row of a batch as a batch of its own, without padding."""
    return prompts(batch.samples[number], family=batch.family).inputs


@cache
def batch_of(family: str) -> Prompts:
    """One image, two images, an image at the end, and no image."""
    a, b, c, d = SMALL[family].images
    return prompts([5, a, 7], [3, b, 12, c, 4], [9, d, 1], [14], family=family)


@cache
def model_of(family: str, backend: str = "sdpa") -> Any:
    """The family's random model; made once."""
    return SMALL[family].model(backend)


def small_llama(layers: int) -> LlamaModel:
    """A random language model without images."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8, hidden_size=32, intermediate_size=32, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return LlamaModel(config).eval()


def save_untrained(folder: Path, layers: int) -> Path:
    """The packaged model's architecture with random weights, saved as a folder."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    save(folder, build_model(tokenizer, layers=layers), tokenizer)
    return folder
