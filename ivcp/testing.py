"""Small random models of every family, for our tests and for those of others.

The models have the architecture of their family, so that a pruner meets the vision tower, the
prompt and the decoder that it meets at full size. They need no download and no GPU.

    @pytest.mark.parametrize("family", SMALL)
    def test_my_pruner_halves_the_visual_tokens(family):
        model, batch = model_of(family), batch_of(family)
        with pruned(model, MyPruner(keep_ratio=0.5)) as session:
            model.generate(**batch.inputs, max_new_tokens=2)
        ...
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LlavaNextConfig

from ivcp.core.layout import ImageLayout
from ivcp.models import known_families
from ivcp.models.deepseekvl import DeepSeekVL
from ivcp.models.deepseekvl2 import DeepSeekVL2, views
from ivcp.models.hub import HubFamily
from ivcp.models.internvl import InternVL
from ivcp.models.llava15 import Llava15
from ivcp.models.llavanext import LlavaNext, anyres
from ivcp.models.qwen2vl import Qwen2VL
from ivcp.models.qwen3vl import Qwen3VL
from ivcp.models.qwen25vl import Qwen25VL

IMAGE, VIDEO, START, END, PAD, EOS = 90, 91, 92, 93, 0, 1
"""Token ids: placeholder of an image, of a video, start and end of an image, padding, end."""

TEXT = {  # grouped queries, and enough layers for methods with several stages
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    "initializer_range": 0.25, "bos_token_id": 2, "eos_token_id": EOS, "pad_token_id": PAD,
    "tie_word_embeddings": False,
}  # fmt: skip
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
QWEN_VISION = {
    "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64,
    "initializer_range": 0.25,
}  # fmt: skip
QWEN_IDS = {
    "image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": START,
    "vision_end_token_id": END, "tie_word_embeddings": False,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 24, "patch_size": 4,
}  # fmt: skip
CLIP = {**VISION, "model_type": "clip_vision_model", "projection_dim": 32}
SIGLIP = {**VISION, "vision_use_head": False}
LLAMA = {"model_type": "llama"}
PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]
GRIDS = ((6, 9), (4, 5), (7, 3), (8, 8))


def random_model(config: Any, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """A model with random weights, the same ones each time, made on the device.

    Args:
        config: Configuration of a supported model; its `attn_implementation` is used.
        dtype: Type of the weights.
        device: Where the weights are made; no copy of them is ever elsewhere.
    """
    family: Any = known_families()[config.model_type]()
    torch.manual_seed(0)
    with torch.device(device):
        model = family._model_class()._from_config(config, dtype=dtype).eval()
    model.generation_config.pad_token_id = PAD
    return model


class ImagePrompt(NamedTuple):
    """The part of a prompt that is one image.

    Attributes:
        ids: Token ids, those around the visual tokens included.
        tokens: (V,) indices of the visual tokens, into `ids`.
        inputs: Pixels and sizes, as inputs of the model.
    """

    ids: list[int]
    tokens: Tensor
    inputs: dict[str, Tensor]


Draw = Callable[..., Tensor]
"""Gives random numbers of a shape."""


def _between(count: int, inputs: dict[str, Tensor]) -> ImagePrompt:
    """Visual tokens between a token that starts and one that ends the image."""
    return ImagePrompt([START, *[IMAGE] * count, END], 1 + torch.arange(count), inputs)


def _qwen(grid: tuple[int, int], draw: Draw) -> ImagePrompt:
    rows, columns = grid
    pixels = draw(4 * rows * columns, 96)
    thw = torch.tensor([[1, 2 * rows, 2 * columns]])
    return _between(rows * columns, {"pixel_values": pixels, "image_grid_thw": thw})


def _square(_: Any, draw: Draw) -> ImagePrompt:
    return ImagePrompt([IMAGE] * 36, torch.arange(36), {"pixel_values": draw(1, 3, 24, 24)})


def _tiles(shape: tuple[int, int], draw: Draw) -> ImagePrompt:
    tiles = shape[0] * shape[1]
    tiles += tiles > 1  # the thumbnail
    return _between(16 * tiles, {"pixel_values": draw(tiles, 3, 32, 32)})


def _with_newlines(layout: ImageLayout, inputs: dict[str, Tensor]) -> ImagePrompt:
    """Newlines have the placeholder's id too; the last one stands behind the last row."""
    return ImagePrompt([IMAGE] * (layout.stop + 1), layout.tokens, inputs)


def _anyres(size: tuple[int, int], draw: Draw) -> ImagePrompt:
    config = LlavaNextConfig(vision_config=CLIP, image_grid_pinpoints=PINPOINTS)
    inputs = {"pixel_values": draw(1, 5, 3, 24, 24), "image_sizes": torch.tensor([size])}
    return _with_newlines(anyres(config, size, 0), inputs)


def _views(crop: tuple[int, int], draw: Draw) -> ImagePrompt:
    pixels = draw(1 + crop[0] * crop[1], 3, 24, 24)
    inputs = {"pixel_values": pixels, "images_spatial_crop": torch.tensor([crop])}
    return _with_newlines(views(0, crop, 3), inputs)


@dataclass(frozen=True)
class SmallFamily:
    """A model family at a small size.

    Attributes:
        family: Its class.
        settings: Arguments of the model's configuration; `text_config` adds to `TEXT`.
        image: Makes an image of a prompt, given its size and a source of random numbers.
        images: Sizes of four images, as `image` takes them.
        cache_width: Numbers that the KV cache keeps of a token in a layer.
    """

    family: type[HubFamily]
    settings: Mapping[str, Any]
    image: Callable[[Any, Draw], ImagePrompt]
    images: tuple[Any, Any, Any, Any]
    cache_width: int = 2 * 2 * 16

    def config(
        self,
        attention: str = "sdpa",
        layers: int = 6,
        *,
        text: Mapping[str, Any] | None = None,
        vision: Mapping[str, Any] | None = None,
    ) -> Any:
        """The model's configuration.

        Args:
            attention: "sdpa", "eager" or "flash_attention_2".
            layers: Number of decoder layers.
            text: Other settings of the language model.
            vision: Other settings of the vision tower.
        """
        kind: Any = self.family()._model_class()
        depth = {"num_hidden_layers": layers}
        changed = {
            "text_config": {**TEXT, **self.settings["text_config"], **depth, **(text or {})},
            "vision_config": {**self.settings["vision_config"], **(vision or {})},
        }
        return kind.config_class(**{**self.settings, **changed}, attn_implementation=attention)

    def model(self, attention: str = "sdpa", layers: int = 6) -> Any:
        """A new random model; `model_of` shares one between tests."""
        return random_model(self.config(attention, layers))


SMALL = {
    "qwen2vl": SmallFamily(
        Qwen2VL,
        {
            "text_config": {"rope_parameters": MROPE}, **QWEN_IDS,
            "vision_config": {
                "depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 4,
                "spatial_merge_size": 2, "temporal_patch_size": 2, "initializer_range": 0.25,
            },
        },
        _qwen, GRIDS,
    ),
    "qwen25vl": SmallFamily(  # one layer of the tower with window, one with full attention
        Qwen25VL,
        {
            "text_config": {"rope_parameters": MROPE}, **QWEN_IDS,
            "vision_config": {**QWEN_VISION, "window_size": 16, "fullatt_block_indexes": [1]},
        },
        _qwen, GRIDS,
    ),
    "qwen3vl": SmallFamily(  # features of the tower enter behind layers 0, 1, 2 and 3
        Qwen3VL,
        {
            "text_config": {
                "head_dim": 16, "rope_parameters": {**MROPE, "mrope_interleaved": True},
            },
            "vision_config": {
                **QWEN_VISION, "depth": 5, "num_position_embeddings": 256,
                "deepstack_visual_indexes": [0, 1, 2, 3],
            },
            **QWEN_IDS,
        },
        _qwen, GRIDS,
    ),
    "llava15": SmallFamily(
        Llava15,
        {"text_config": LLAMA, "vision_config": CLIP, "image_token_index": IMAGE},
        _square, GRIDS,
    ),
    "llavanext": SmallFamily(
        LlavaNext,
        {
            "text_config": LLAMA, "vision_config": CLIP, "image_token_index": IMAGE,
            "image_grid_pinpoints": PINPOINTS,
        },
        _anyres, ((40, 60), (20, 20), (30, 64), (70, 21)),
    ),
    "internvl": SmallFamily(  # with the language model of version 3
        InternVL,
        {
            "text_config": {"model_type": "qwen2"},
            "vision_config": {**VISION, "image_size": [32, 32], "patch_size": [4, 4]},
            "image_token_id": IMAGE, "image_seq_length": 16,
        },
        _tiles, ((2, 2), (1, 1), (3, 1), (1, 2)),
    ),
    "deepseekvl": SmallFamily(
        DeepSeekVL,
        {
            "text_config": LLAMA, "image_token_id": IMAGE, "tie_word_embeddings": False,
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model"},
        },
        _square, GRIDS,
    ),
    "deepseekvl2": SmallFamily(  # latent attention and routed experts
        DeepSeekVL2,
        {
            "text_config": {
                "num_key_value_heads": 4, "kv_lora_rank": 24, "q_lora_rank": None,
                "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
                "moe_intermediate_size": 32, "first_k_dense_replace": 1, "topk_method": "greedy",
                "routed_scaling_factor": 1.0, "n_routed_experts": 4, "n_shared_experts": 1,
                "num_experts_per_tok": 2,
            },
            "vision_config": SIGLIP, "image_token_id": IMAGE,
            "candidate_resolutions": [[24, 24], [48, 24], [24, 48], [48, 48]],
        },
        _views, ((2, 2), (1, 1), (2, 1), (1, 2)), cache_width=24 + 16,
    ),
}  # fmt: skip
"""Every family by the stem of its module."""


@dataclass
class Prompts:
    """A left-padded batch for a random model.

    Attributes:
        inputs: Keyword arguments of `generate`.
        lengths: Length of each row without padding.
        tokens: For each row, the prompt indices of each image's visual tokens, padding not counted.
        samples: What the rows were built from.
        family: Key of `SMALL`.
    """

    inputs: dict[str, Tensor]
    lengths: list[int]
    tokens: list[list[Tensor]]
    samples: tuple[list[Any], ...]
    family: str

    @property
    def spans(self) -> list[list[tuple[int, int]]]:
        """For each row, (first token, number of tokens) of each image."""
        return [[(int(image[0]), len(image)) for image in images] for images in self.tokens]


def prompts(*samples: list[Any], family: str = "qwen25vl") -> Prompts:
    """Build a batch; a sample is a list of text lengths (int) and sizes of images, in order.

    Equal samples get equal tokens and pixels in every batch.
    """
    rows: list[Tensor] = []
    tokens: list[list[Tensor]] = []
    images: list[ImagePrompt] = []
    for sample in samples:
        generator = torch.Generator().manual_seed(zlib.crc32(repr(sample).encode()))

        def draw(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(shape, generator=generator)

        ids: list[int] = []
        tokens.append([])
        for part in sample:
            if isinstance(part, int):
                ids += torch.randint(3, 80, (part,), generator=generator).tolist()
                continue
            image = SMALL[family].image(part, draw)
            tokens[-1].append(image.tokens + len(ids))
            ids += image.ids
            images.append(image)
        rows.append(torch.tensor(ids))
    input_ids = torch.nn.utils.rnn.pad_sequence(rows, True, PAD, "left")
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], True, 0, "left")
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    if family.startswith("qwen"):
        inputs["mm_token_type_ids"] = (input_ids == IMAGE).int()
    if images:
        names = images[0].inputs
        inputs |= {name: torch.cat([image.inputs[name] for image in images]) for name in names}
    return Prompts(inputs, [len(row) for row in rows], tokens, samples, family)


def single(batch: Prompts, number: int) -> dict[str, Tensor]:
    """Inputs of one row of a batch, without padding."""
    return prompts(batch.samples[number], family=batch.family).inputs


@cache
def batch_of(family: str) -> Prompts:
    """Four rows: one image, two images, an image at the end, and no image."""
    a, b, c, d = SMALL[family].images
    return prompts([5, a, 7], [3, b, 12, c, 4], [9, d, 1], [14], family=family)


@cache
def model_of(family: str, attention: str = "sdpa") -> Any:
    """The family's random model, made once; a test must leave it as it is."""
    return SMALL[family].model(attention)
