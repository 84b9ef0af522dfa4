"""DeepSeek-VL2."""

from __future__ import annotations

from typing import Any

import numpy as np
from expectation import Shown, Size, Written
from torch import Tensor

from expected.deepseekvl import LETTERS, DeepSeek
from ivcp.core.layout import PromptLayout
from ivcp.core.types import Box

BOX = "<|ref|>it<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>"


def up_to_999(box: np.ndarray, size: Size) -> list[int]:
    """The box in 999ths of the image."""
    return np.round(box / np.tile(size, 2) * 999).astype(int).tolist()


class Expected(DeepSeek):
    """A padded global view, then padded local rows; boxes from 0 to 999."""

    special = ("<image>", "<|User|>", "<|Assistant|>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>")
    ids = {"image_token_id": "<image>"}
    preprocessor = {}  # all is in the model's configuration
    layout_in_pixels = True
    generates_offloaded = False
    grids = [
        [("thumbnail", 3, 3), ("tile", *size)] for size in ((6, 6), (3, 3), (3, 6), (6, 3))
    ]  # fmt: skip
    questions = ("Locate <|ref|>Left CAT<|/ref|> in the given image.", "Is there a cat?", LETTERS)
    around = ("<|User|>: ", "<image>\n", "\n\n<|Assistant|>:")
    wording = "deepseek2"
    answers = [
        ("<|ref|>cat<|/ref|><|det|>[[12, 345, 678, 999]]<|/det|>", (12, 345, 678, 999)),
        ("cat[[12,345,678,999], [1, 2, 3, 4]]", (12, 345, 678, 999)),
        ("[[2, 311, 98]]", None),
        ("", None),
    ]
    written = (Written({}, up_to_999, BOX, 0.997),)
    units = 999

    def token_count(self, processor: Any, size: Size, images: int) -> int:
        return processor.images.token_count(processor.images.crop(size, images))

    def shown(
        self, processor: Any, inputs: dict[str, Tensor], layout: PromptLayout, area: Box, size: Size
    ) -> list[Shown]:
        pixels = inputs["pixel_values"] * processor.images.std + processor.images.mean
        wide, high = inputs["images_spatial_crop"][0].tolist()
        tiles = pixels[1:].view(high, wide, 3, 24, 24).permute(2, 0, 3, 1, 4)
        local = tiles.reshape(3, 24 * high, 24 * wide)
        thumbnail, rows = layout.images[0].grids
        return [(pixels[0], thumbnail, thumbnail.area), (local, rows, rows.area)]
