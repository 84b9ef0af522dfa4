"""LLaVA-NeXT."""

from __future__ import annotations

from typing import Any

from expectation import Shown, Size, Written, fractions, raw
from torch import Tensor
from transformers import LlavaNextProcessor
from transformers.image_processing_utils import select_best_resolution

from expected.llava15 import BOX, PREPROCESSOR, Llava
from ivcp.core.layout import Grid, PromptLayout
from ivcp.core.types import Box
from ivcp.testing.families.llavanext import PINPOINTS


def canvas(pixels: Tensor, grid: Grid, size: Size) -> Tensor:
    """(3, height, width) of the tiles as one image, cut to the grid's tokens."""
    height, width = select_best_resolution(size[::-1], PINPOINTS)
    tiles = pixels[1 : 1 + height * width // 24**2].view(height // 24, width // 24, 3, 24, 24)
    whole = tiles.permute(2, 0, 3, 1, 4).reshape(3, height, width)
    top, left = (height // 4 - grid.rows) // 2 * 4, (width // 4 - grid.columns) // 2 * 4
    return whole[:, top : top + 4 * grid.rows, left : left + 4 * grid.columns]


class Expected(Llava):
    """A thumbnail, and tiles that are joined to one grid."""

    preprocessor = {
        **PREPROCESSOR,
        "image_processor_type": "LlavaNextImageProcessor",
        "image_grid_pinpoints": PINPOINTS,
    }
    generates_offloaded = False
    grids = [[("thumbnail", 6, 6), ("tile", *size)] for size in ((8, 12), (6, 6), (6, 12), (18, 6))]
    padding_cut = True
    written = (Written({}, fractions, BOX, 0.973),)

    def token_count(self, processor: Any, size: Size, images: int) -> int:
        own = object.__new__(LlavaNextProcessor)
        own.image_processor, own.patch_size = processor.images, 4
        own.num_additional_image_tokens = 1
        return own._get_number_of_features(size[1], size[0], 24, 24) - 1

    def shown(
        self, processor: Any, inputs: dict[str, Tensor], layout: PromptLayout, area: Box, size: Size
    ) -> list[Shown]:
        (pixels,) = raw(processor, inputs["pixel_values"])
        thumbnail, *tiles = layout.images[0].grids
        return [
            (pixels[0], thumbnail, thumbnail.area),
            *((canvas(pixels, grid, size), grid, grid.area) for grid in tiles),
        ]
