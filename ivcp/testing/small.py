"""What the small random models of the families are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ivcp.core.layout import ImageLayout
from ivcp.models import known_families
from ivcp.models.hub import HubFamily
from ivcp.models.random_weights import make_random

IMAGE, VIDEO, START, END, PAD, EOS = 90, 91, 92, 93, 0, 1
"""Token ids: placeholder of an image, of a video, start and end of an image, padding, end."""
VIDEO_START, VIDEO_END = 94, 95
"""Token ids: start and end of a video whose frames are made of image placeholders."""

TEXT = {  # grouped queries, and enough layers for methods with several stages
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    "initializer_range": 0.25, "bos_token_id": 2, "eos_token_id": EOS, "pad_token_id": PAD,
    "tie_word_embeddings": False,
}  # fmt: skip
LLAMA = {"model_type": "llama"}
VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 24, "patch_size": 4,
}  # fmt: skip
CLIP = {**VISION, "model_type": "clip_vision_model", "projection_dim": 32}
SIGLIP = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}


def random_model(config: Any, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """A model with random weights, the same ones each time, made on the device.

    Args:
        config: Configuration of a supported model; its `attn_implementation` is used.
        dtype: Type of the weights.
        device: Where the weights are made; no copy of them is ever elsewhere.
    """
    family: Any = known_families()[config.model_type]()
    return make_random(family._model_class(), config, dtype, device)


class ImagePrompt(NamedTuple):
    """The part of a prompt that is one image or video.

    Attributes:
        ids: Token ids, those around the visual tokens included.
        tokens: (V,) indices of the visual tokens, into `ids`.
        inputs: Pixels and sizes, as inputs of the model.
    """

    ids: list[int]
    tokens: Tensor
    inputs: dict[str, Tensor]


def token_types(ids: Tensor) -> Tensor:
    """(B, S) `mm_token_type_ids`: 1 for tokens of images, 2 for tokens of videos, 0 for text."""
    in_video = (ids == VIDEO_START).cumsum(-1) > (ids == VIDEO_END).cumsum(-1)
    image, video = ids == IMAGE, ids == VIDEO
    return image.int() * (1 + in_video.int()) + 2 * video.int()


Draw = Callable[..., Tensor]
"""Gives random numbers of a shape."""


def between(count: int, inputs: dict[str, Tensor]) -> ImagePrompt:
    """Visual tokens between a token that starts and one that ends the image."""
    return ImagePrompt([START, *[IMAGE] * count, END], 1 + torch.arange(count), inputs)


def square(_: Any, draw: Draw) -> ImagePrompt:
    """An image of 6 x 6 tokens, whatever its size."""
    return ImagePrompt([IMAGE] * 36, torch.arange(36), {"pixel_values": draw(1, 3, 24, 24)})


def with_newlines(
    layout: ImageLayout, inputs: dict[str, Tensor], token: int = IMAGE
) -> ImagePrompt:
    """An image whose newlines have the placeholder's id too; the last stands behind all rows."""
    return ImagePrompt([token] * (layout.stop + 1), layout.tokens, inputs)


@dataclass(frozen=True, kw_only=True)
class SmallFamily:
    """A model family at a small size.

    Attributes:
        family: Its class.
        settings: Arguments of the model's configuration; `text_config` adds to `TEXT`.
        image: Makes an image of a prompt, given its size and a source of random numbers.
        several: Likewise, for a prompt with several images, if these are other than a single one;
            the input `batch_num_images` then holds the number of images of each prompt.
        images: Sizes of four images, as `image` takes them.
        video: Makes a video, given frames, rows and columns of tokens and a source of random
            numbers; None for a family that takes images only.
        cache_width: Numbers that the KV cache keeps of a token in a layer.
        state_width: Numbers that the linear layers keep of a prompt beside, in all 6 layers.
        token_types: Whether the model takes `mm_token_type_ids`.
        types_name: Another name of that input.
        layer_types: The library's kinds of 6 decoder layers, if they differ.
    """

    family: type[HubFamily]
    settings: Mapping[str, Any]
    image: Callable[[Any, Draw], ImagePrompt]
    several: Callable[[Any, Draw], ImagePrompt] | None = None
    images: tuple[Any, Any, Any, Any] = ((6, 9), (4, 5), (7, 3), (8, 8))
    video: Callable[[int, int, int, Draw], ImagePrompt] | None = None
    cache_width: int = 2 * 2 * 16
    state_width: int = 0
    token_types: bool = False
    types_name: str = "mm_token_type_ids"
    layer_types: tuple[str, ...] = ()

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
        depth: dict[str, Any] = {"num_hidden_layers": layers}
        if self.layer_types:  # the last layers: a model needs one with keys
            depth["layer_types"] = [*self.layer_types * layers][-layers:]
        changed = {
            "text_config": {**TEXT, **self.settings["text_config"], **depth, **(text or {})},
            "vision_config": {**self.settings["vision_config"], **(vision or {})},
        }
        return kind.config_class(**{**self.settings, **changed}, attn_implementation=attention)

    def model(self, attention: str = "sdpa", layers: int = 6) -> Any:
        """A new random model; `ivcp.testing.model_of` shares one between tests."""
        return random_model(self.config(attention, layers))
