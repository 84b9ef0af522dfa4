"""DeepSeek-VL2: a global view, then local rows; newline and separator tokens; latent attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.family import Frame
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.types import Box, Sample
from ivcp.models import wording
from ivcp.models.hub import WHOLE, HubFamily, Processor, Seen, magnified, pictures
from ivcp.models.placeholders import deal, structural

SPECIAL = ("<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|User|>", "<|Assistant|>")
"""Tokens that the published processor adds to its tokenizer where they are missing."""


@dataclass(frozen=True, kw_only=True)
class DeepSeekVL2(HubFamily):
    """DeepSeek-VL2 and -small; the tiny one has no latent attention and is refused.

    `transformers` 5.23 does not know this model; `ivcp.models.backports` builds it from the
    library's parts and reads the published checkpoints.
    """

    path: str | None = "deepseek-ai/deepseek-vl2-small"

    model_types: ClassVar[tuple[str, ...]] = ("deepseek_vl_v2",)
    architecture: ClassVar[str] = "DeepseekVL2ForConditionalGeneration"
    image_token: ClassVar[str] = "<image>"

    @property
    def _config(self) -> Any:
        from ivcp.models.backports import deepseek_vl2_config  # noqa: F401 (registers itself)

        return super()._config

    def _model_class(self) -> Any:
        from ivcp.models.backports.deepseek_vl2 import DeepseekVL2ForConditionalGeneration

        return DeepseekVL2ForConditionalGeneration

    def _images(self, config: Any) -> Any:
        from ivcp.models.backports.deepseek_vl2_processing import DeepseekVL2Images

        return DeepseekVL2Images.from_config(config)

    def load(self, gpus: Sequence[int] | None = None) -> tuple[nn.Module, Processor]:
        model, processor = super().load(gpus)
        tokenizer: Any = processor.tokenizer
        absent = [token for token in SPECIAL if token not in tokenizer.get_vocab()]
        tokenizer.add_tokens(absent, special_tokens=True)
        config: Any = model.config
        config.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        return model, processor

    def ask(self, sample: Sample) -> str:
        return wording.deepseek2(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """Source: DeepSeek-VL2's conversation, without a system prompt; a turn is stripped."""
        images = f"{self.image_token}\n" * len(sample.images)
        if sample.benchmark == "MMMU_DEV_VAL":
            images = f"{self.image_token * len(sample.images)}\n"
        return f"<|User|>: {(images + self.asked(sample)).strip()}\n\n<|Assistant|>:"

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        images = processor.images
        return sum(images.token_count(images.crop(size, len(sizes))) for size in sizes)

    def see(self, processor: Processor, samples: Sequence[Sample]) -> Seen:
        tiles = processor.images([magnified(sample) for sample in samples])
        return Seen(
            {"pixel_values": tiles.pixel_values, "images_spatial_crop": tiles.images_spatial_crop},
            [self.image_token * count for count in tiles.tokens],
            [Frame(999, 999, *image.size) for image in pictures(samples)],
        )

    def layouts(
        self,
        model: nn.Module,
        rows: Sequence[Tensor],
        positions: Sequence[Tensor] | None,
        inputs: dict[str, Any],
    ) -> list[PromptLayout]:
        config: Any = model.config
        images = self._images(config)
        given = inputs.get("images_spatial_crop")
        crops = [] if given is None else [(wide, high) for wide, high in given.tolist()]
        areas = _areas(inputs.get("pixel_values"), crops, images)
        if (token := config.image_token_id) is None:
            raise UserError(
                "config.image_token_id is not set (the published config.json has no such key); set "
                "it to the id that the tokenizer gives to <image>."
            )
        layouts = []
        lengths = [images.token_count(crop) for crop in crops]
        for row, places in zip(rows, deal(rows, token, lengths), strict=True):
            found = [views(start, crops[n], images.side, *areas[n]) for n, start in places]
            # the last newline stands behind the last visual token, and one token is skipped
            ends = structural(row, token, found)
            layouts.append(PromptLayout(len(row), tuple(found), ends, query_offset=2))
        return layouts

    def cached_states(
        self, layer: nn.Module, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The cache stores (1, N, rank) latents as keys and (1, N, rotary) keys as values."""
        keys, values = layer.self_attn.expand_kv(keys[None], values[None])  # type: ignore[union-attr,operator]
        return keys[0], values[0]

    def query_states(self, layer: nn.Module, hidden: Tensor, rotary: Any) -> Tensor:
        from transformers.models.deepseek_v2.modeling_deepseek_v2 import apply_rotary_emb

        attention: Any = layer.self_attn
        hidden = layer.input_layernorm(hidden)  # type: ignore[operator]
        if attention.q_proj is not None:
            query = attention.q_proj(hidden)
        else:
            query = attention.q_b_proj(attention.q_a_layernorm(attention.q_a_proj(hidden)))
        query = query.unflatten(-1, (-1, attention.qk_head_dim)).transpose(1, 2)  # (B, H, R, D)
        plain, turned = query.split([attention.qk_nope_head_dim, attention.qk_rope_head_dim], -1)
        turned, _ = apply_rotary_emb(turned, turned[:, :1], rotary)
        return torch.cat([plain, turned], -1)


def views(
    start: int, crop: tuple[int, int], side: int, whole: Box = WHOLE, local: Box = WHOLE
) -> ImageLayout:
    """Grids of an image cut into (width, height) tiles whose first token stands at `start`.

    A newline stands behind each row of both views and a separator between them. The local rows run
    through all tiles side by side; each has reference points of its own, as in the IVC-Prune
    release.

    Args:
        start: Index into the prompt.
        crop: Tiles in width and height.
        side: Visual tokens along the side of a tile.
        whole: What the global view shows, as fractions of the image.
        local: What the local view shows.
    """
    wide, high = crop
    second = start + side * (side + 1) + 1
    return ImageLayout(
        (
            Grid(start, side, side, "thumbnail", side + 1, whole),
            Grid(second, side * high, side * wide, "tile", side * wide + 1, local, by_row=True),
        )
    )


def _areas(
    pixels: Tensor | None, crops: Sequence[tuple[int, int]], images: Any
) -> list[tuple[Box, Box]]:
    """What both views of each image show of it, read off the padding around the image."""
    if pixels is None:
        return [(WHOLE, WHOLE)] * len(crops)
    fill = (int(images.mean * 255) / 255 - images.mean) / images.std
    areas, first = [], 0
    for wide, high in crops:
        whole, local = pixels[first], pixels[first + 1 : first + 1 + wide * high]
        first += 1 + wide * high
        local = local.reshape(high, wide, *whole.shape).permute(2, 0, 3, 1, 4)
        local = local.flatten(3).flatten(1, 2)
        areas.append((_shown(whole, fill), _shown(local, fill)))
    return areas


def _shown(view: Tensor, fill: float) -> Box:
    """What a (3, H, W) view shows, as fractions of the image inside its padding.

    Padding is even on both sides; an image of its colour on one side only is not taken for it.
    """
    there = ((view.float() - fill).abs() > 1e-3).any(0)
    edges: list[float] = []
    for axis in (0, 1):  # over rows: columns, and the other way round
        length = there.shape[1 - axis]
        places = there.any(axis).nonzero()[:, 0].tolist() or [0, length - 1]
        front, back = places[0], length - 1 - places[-1]
        if abs(front - back) > 1:
            front = back = min(front, back)
        size = length - front - back
        edges += [-front / size, (length - front) / size]
    left, right, top, bottom = edges
    return left, top, right, bottom
