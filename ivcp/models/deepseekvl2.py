"""DeepSeek-VL2: a global view, then local rows; newline and separator tokens; latent attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ivcp.core.errors import LibraryTooOldError, UserError
from ivcp.core.family import BoxFrame, Inputs, Rows
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.tower import VisionTower
from ivcp.core.types import Box, Sample
from ivcp.core.view import LAYER_SIGNALS, TOWER_SIGNALS, Signal
from ivcp.models import wording
from ivcp.models.decoders import PLAIN
from ivcp.models.encoding import FULL_AREA, images_of, magnified
from ivcp.models.hub import HubFamily
from ivcp.models.placeholders import assign, structural
from ivcp.models.processor import ProcessedImages, Processor
from ivcp.models.towers import DeepSeekVL2Tower

SPECIAL = ("<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|User|>", "<|Assistant|>")
"""Tokens that the published processor adds to its tokenizer where they are missing."""


@dataclass(frozen=True, kw_only=True)
class DeepSeekVL2(HubFamily):
    """DeepSeek-VL2 and -small; the tiny one has no latent attention and is refused.

    `transformers` 5.23 does not know this model; `ivcp.models.backports` builds it from the
    library's parts and reads the published checkpoints. Its DeepSeek-V2 must cache latents, as it
    does since version 5.15.
    """

    path: str | None = "deepseek-ai/deepseek-vl2-small"

    model_types: ClassVar[tuple[str, ...]] = ("deepseek_vl_v2",)
    architecture: ClassVar[str] = "DeepseekVL2ForConditionalGeneration"
    image_token: ClassVar[str] = "<image>"

    @property
    def _config(self) -> Any:
        _check_library()
        from ivcp.models.backports import deepseek_vl2_config  # noqa: F401 (registers itself)

        return super()._config

    def _model_class(self) -> Any:
        _check_library()
        from ivcp.models.backports.deepseek_vl2 import DeepseekVL2ForConditionalGeneration

        return DeepseekVL2ForConditionalGeneration

    def _images(self, config: Any) -> Any:
        from ivcp.models.backports.deepseek_vl2_processing import DeepseekVL2Images

        return DeepseekVL2Images.from_config(config)

    def _tokenizer(self, config: Any) -> Any:
        tokenizer = super()._tokenizer(config)
        absent = [token for token in SPECIAL if token not in tokenizer.get_vocab()]
        tokenizer.add_tokens(absent, special_tokens=True)
        config.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        return tokenizer

    def format_question(self, sample: Sample) -> str:
        return wording.deepseek2(sample)

    def prompt(self, tokenizer: Any, sample: Sample) -> str:
        """Source: DeepSeek-VL2's conversation, without a system prompt; a turn is stripped."""
        images = f"{self.image_token}\n" * len(sample.images)
        if sample.benchmark == "MMMU_DEV_VAL":
            images = f"{self.image_token * len(sample.images)}\n"
        return f"<|User|>: {(images + self.question_text(sample)).strip()}\n\n<|Assistant|>:"

    def expected_tokens(self, processor: Processor, sizes: Sequence[tuple[int, int]]) -> float:
        images = processor.images
        return sum(images.token_count(images.crop(size, len(sizes))) for size in sizes)

    def process_images(self, processor: Processor, samples: Sequence[Sample]) -> ProcessedImages:
        tiles = processor.images([magnified(sample) for sample in samples])
        return ProcessedImages(
            {"pixel_values": tiles.pixel_values, "images_spatial_crop": tiles.images_spatial_crop},
            [self.image_token * count for count in tiles.tokens],
            [BoxFrame(999, 999, *image.size) for image in images_of(samples)],
        )

    def provides(self, config: Any) -> frozenset[Signal]:
        return PLAIN | LAYER_SIGNALS | TOWER_SIGNALS | {"question"}

    def tower(self, model: nn.Module) -> VisionTower:
        return DeepSeekVL2Tower(self.entry(model))

    def layout_inputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Tiles in width and height, and the lines of each tile that are not pure padding."""
        crops, pixels = inputs.get("images_spatial_crop"), inputs.get("pixel_values")
        if crops is None or pixels is None:
            return {}
        images = self._images(model.config)
        fill = (int(images.mean * 255) / 255 - images.mean) / images.std
        content = ((pixels.float() - fill).abs() > 1e-3).any(1)  # (T, H, W)
        return {
            "images_spatial_crop": torch.as_tensor(crops),
            "content_lines": torch.stack([content.any(2), content.any(1)], 1),  # (T, 2, side)
        }

    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        config: Any = model.config
        images = self._images(config)
        lines = inputs.get("content_lines")
        crops = [] if lines is None else [(w, h) for w, h in inputs["images_spatial_crop"].tolist()]
        areas = [] if lines is None else _areas(lines, crops)
        if (token := config.image_token_id) is None:
            raise UserError(
                "config.image_token_id is not set (the published config.json has no such key); set "
                "it to the id that the tokenizer gives to <image>."
            )
        if lines is None and any(bool((row == token).any()) for row in rows):
            raise UserError(
                "How much of an image is padding shows in its pixels alone: pass pixel_values, or "
                "encode them inside pruned(...)."
            )
        layouts = []
        lengths = [images.token_count(crop) for crop in crops]
        for row, starts in zip(rows, assign(rows, token, lengths), strict=True):
            layout = [
                replace(views(start, crops[n], images.side, *areas[n]), number=n)
                for n, start in starts
            ]
            # 2: the newline behind the last visual token, and one token as in the release
            newlines = structural(row, token, layout)
            layouts.append(PromptLayout(len(row), tuple(layout), newlines, query_offset=2))
        return layouts

    def cached_states(
        self, layer: nn.Module, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The cache stores (B, 1, N, rank) latents as keys, (B, 1, N, rotary) keys as values."""
        expanded: tuple[Tensor, Tensor] = layer.self_attn.expand_kv(keys, values)  # type: ignore[union-attr,operator]
        return expanded

    def stored_states(
        self, layer: nn.Module, hidden: Tensor, rotary: Any, *, values: bool = True
    ) -> tuple[Tensor, Tensor]:
        from transformers.models.deepseek_v2.modeling_deepseek_v2 import apply_rotary_emb

        attention: Any = layer.self_attn
        packed = attention.kv_a_proj_with_mqa(layer.input_layernorm(hidden))  # type: ignore[operator]
        latent, key = packed.split([attention.kv_lora_rank, attention.qk_rope_head_dim], -1)
        key, _ = apply_rotary_emb(key[:, None], key[:, None], rotary)
        return attention.kv_a_layernorm(latent)[:, None], key

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


def _check_library() -> None:
    """Refuse a library whose DeepSeek-V2 caches complete keys and values.

    Raises:
        LibraryTooOldError: It does.
    """
    from transformers import __version__
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention

    if not hasattr(DeepseekV2Attention, "expand_kv"):
        raise LibraryTooOldError(
            f"DeepSeek-VL2 needs transformers>=5.15; {__version__} is installed: update it with "
            'pip install -U "transformers<6".'
        )


def views(
    start: int,
    crop: tuple[int, int],
    side: int,
    global_area: Box = FULL_AREA,
    local_area: Box = FULL_AREA,
) -> ImageLayout:
    """Grids of an image that is cut into (width, height) tiles.

    A newline stands behind each row of both views, and a separator between the views. The rows of
    the local view run through all tiles side by side; each row has its own IVC tokens, as in the
    IVC-Prune release.

    Args:
        start: Prompt index of the first token.
        crop: Tiles in width and height.
        side: Visual tokens along the side of a tile.
        global_area: The area that the global view shows, as fractions of the image.
        local_area: The area that the local view shows.
    """
    wide, high = crop
    second = start + side * (side + 1) + 1
    return ImageLayout(
        (
            Grid(start, side, side, "thumbnail", side + 1, global_area),
            Grid(
                second, side * high, side * wide, "tile", side * wide + 1, local_area, by_row=True
            ),
        )
    )


def _areas(lines: Tensor, crops: Sequence[tuple[int, int]]) -> list[tuple[Box, Box]]:
    """Areas of the global and the local view of each image, found by the padding around it.

    Args:
        lines: (T, 2, side) on the CPU, True at rows and columns of each tile with content.
        crops: Tiles in width and height of each image.
    """
    areas, tile = [], 0
    for wide, high in crops:
        thumbnail, local = lines[tile], lines[tile + 1 : tile + 1 + wide * high]
        tile += 1 + wide * high
        local = local.reshape(high, wide, 2, -1)
        rows, columns = local[:, :, 0].any(1).flatten(), local[:, :, 1].any(0).flatten()
        areas.append((_view_area(thumbnail[0], thumbnail[1]), _view_area(rows, columns)))
    return areas


def _view_area(rows: Tensor, columns: Tensor) -> Box:
    """The area that a view shows, as fractions of the image inside its padding."""
    edges: list[float] = []
    for has_content in (columns, rows):
        length = len(has_content)
        content = has_content.nonzero()[:, 0].tolist() or [0, length - 1]
        front, back = content[0], length - 1 - content[-1]
        if abs(front - back) > 1:
            # padding is even on both sides: the rest is part of an image in the padding's colour
            front = back = min(front, back)
        size = length - front - back
        edges += [-front / size, (length - front) / size]
    left, right, top, bottom = edges
    return left, top, right, bottom
