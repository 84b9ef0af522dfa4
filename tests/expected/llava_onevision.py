"""LLaVA-OneVision."""

from __future__ import annotations

from typing import Any

import torch
from expectation import Shown, Size, Written, fractions, raw
from torch import Tensor
from transformers import LlavaOnevisionProcessor
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_onevision.modeling_llava_onevision import unpad_image

from expected.llava15 import BOX, Llava, fractions_of_the_square
from expected.qwen2vl import ASSISTANT, HELPFUL, ROLES, USER
from ivcp.core.family import BoxFrame
from ivcp.core.layout import PromptLayout
from ivcp.core.types import Box
from ivcp.models.llava15 import square_frame
from ivcp.testing.families.llava_onevision import PINPOINTS


def canvas(pixels: Tensor, size: Size) -> Tensor:
    """(3, height, width) of the tiles as one image, padding cut off by whole patches."""
    height, width = select_best_resolution(size[::-1], PINPOINTS)
    tiles = pixels[1 : 1 + height * width // 24**2].view(height // 24, width // 24, 3, 24, 24)
    whole = tiles.permute(2, 0, 3, 1, 4).reshape(3, height, width)
    shown = unpad_image(torch.empty(1, height // 4, width // 4), size[::-1]).shape
    top, left = ((whole.shape[axis] // 4 - shown[axis]) // 2 * 4 for axis in (1, 2))
    return whole[:, top : top + 4 * shown[1], left : left + 4 * shown[2]]


class Expected(Llava):
    """A single image as a whole and in tiles; each of several images in a square."""

    roles = ROLES
    special = ("<|im_start|>", "<image>", "<video>")
    ids = {"image_token_id": "<image>", "video_token_id": "<video>"}
    preprocessor = {
        "image_processor_type": "LlavaOnevisionImageProcessor",
        "size": {"height": 24, "width": 24},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_grid_pinpoints": PINPOINTS,
    }
    variants = ({"box_frame": "padded"},)
    generates_offloaded = False
    grids = [
        [("thumbnail", 6, 6), ("tile", 5, 12)],
        [("image", 6, 6)],
        [("image", 6, 6)],
        [("thumbnail", 6, 6), ("tile", 6, 12)],
    ]
    equal_frames = True
    padding_cut = True
    around = (HELPFUL + USER, "<image>\n", ASSISTANT)
    written = (
        Written({}, fractions, BOX, 0.973),
        Written({"box_frame": "padded"}, fractions_of_the_square, "[{}, {}, {}, {}]", 0.967),
    )

    def token_count(self, processor: Any, size: Size, images: int) -> int:
        if images > 1:
            return 6 * 6 + 1
        own = object.__new__(LlavaOnevisionProcessor)
        own.image_processor, own.num_image_tokens = processor.images, 36
        own.vision_aspect_ratio = "anyres_max_2"
        return own._get_number_of_features(size[1], size[0], 24, 24)

    def shown(
        self, processor: Any, inputs: dict[str, Tensor], layout: PromptLayout, area: Box, size: Size
    ) -> list[Shown]:
        (pixels,) = raw(processor, inputs["pixel_values"])
        thumbnail, *tiles = layout.images[0].grids
        return [
            (pixels[0], thumbnail, thumbnail.area),
            *((canvas(pixels, size), grid, grid.area) for grid in tiles),
        ]

    def frame(self, family: Any, size: Size) -> BoxFrame:
        if family.box_frame == "padded":
            return square_frame(size, max(size))
        return super().frame(family, size)
