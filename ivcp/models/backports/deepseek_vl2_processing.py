"""How DeepSeek-VL2 cuts an image into tiles, with PIL only.

Source: deepseek_vl2/models/processing_deepseek_vl_v2.py of deepseek-ai/DeepSeek-VL2.

Shapes: M images, T tiles of all images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.types import Box

PUBLISHED_TILES = (
    (1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1), (2, 2), (1, 5), (5, 1), (1, 6), (6, 1),
    (2, 3), (3, 2), (1, 7), (7, 1), (1, 8), (8, 1), (2, 4), (4, 2), (1, 9), (9, 1), (3, 3),
)  # fmt: skip


def best_resolution(
    size: tuple[int, int], candidates: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """The candidate that shows most pixels of the image; of equals, the smallest.

    Enlarging the image adds no pixels. Of candidates of equal merit and size, the first wins.

    Args:
        size: (width, height) of the image.
        candidates: (width, height) each.

    >>> best_resolution((800, 400), [(384, 384), (768, 384), (384, 768)])
    (768, 384)
    """

    def merit(candidate: tuple[int, int]) -> tuple[int, int]:
        scale = min(candidate[0] / size[0], candidate[1] / size[1])
        pixels = int(size[0] * scale) * int(size[1] * scale)
        return min(pixels, size[0] * size[1]), -candidate[0] * candidate[1]

    return max(candidates, key=merit)


def letterbox(
    image: Image.Image, size: tuple[int, int], fill: tuple[int, int, int]
) -> tuple[Image.Image, Box]:
    """Scale an image to fit into `size` with its aspect ratio kept, and centre it on `fill`.

    Equals PIL's `ImageOps.pad`, except that a side never vanishes: the reference fails on images so
    narrow that it would.

    Returns:
        The padded image, and the area (x1, y1, x2, y2) that it shows in units of the image:
        (0, 0, 1, 1) is the image, and everything outside is padding.
    """
    width, height = size
    ratio, wanted = image.width / image.height, width / height
    if ratio > wanted:
        height = max(1, round(image.height / image.width * width))
    elif ratio < wanted:
        width = max(1, round(image.width / image.height * height))
    left, top = round((size[0] - width) * 0.5), round((size[1] - height) * 0.5)
    padded = Image.new("RGB", size, fill)
    padded.paste(image.resize((width, height), Image.Resampling.BICUBIC), (left, top))
    area = (-left / width, -top / height, (size[0] - left) / width, (size[1] - top) / height)
    return padded, area


@dataclass(frozen=True)
class Tiles:
    """The images of a batch after the processor.

    Attributes:
        pixel_values: (T, 3, size, size), for each image its global view and then its tiles.
        images_spatial_crop: (M, 2), tiles in width and height.
        tokens: For each image, the number of visual tokens in the prompt.
        global_areas: For each image, the area of its global view in units of the image.
        local_areas: The same for the local view, all tiles together.
    """

    pixel_values: Tensor
    images_spatial_crop: Tensor
    tokens: list[int]
    global_areas: list[Box]
    local_areas: list[Box]


@dataclass(frozen=True, kw_only=True)
class DeepseekVL2Images:
    """Turns images into tiles as DeepSeek-VL2 was trained on them.

    The global view is the image fitted into a square. The local view is the image at the best
    candidate resolution, cut into tiles of the same size, row by row. With more than two images in
    a prompt the local view is one tile. Padding has the mean colour.

    Attributes:
        image_size: Side of a tile in pixels.
        patch_size: Side of a patch in pixels; a rest that fills no patch is left out.
        downsample_ratio: This many patches in either direction make one visual token.
        candidate_resolutions: (width, height) in pixels; multiples of `image_size`.
        mean: Of a channel in [0, 1].
        std: Of a channel.
        max_cropped: With more images than this in one prompt, none is cut into tiles.
    """

    image_size: int = 384
    patch_size: int = 14
    downsample_ratio: int = 2
    candidate_resolutions: tuple[tuple[int, int], ...] = tuple(
        (384 * width, 384 * height) for width, height in PUBLISHED_TILES
    )
    mean: float = 0.5
    std: float = 0.5
    max_cropped: int = 2

    def __post_init__(self) -> None:
        sides = list(itertools.chain(*self.candidate_resolutions))
        if not sides or any(side <= 0 or side % self.image_size for side in sides):
            raise UserError(
                f"candidate_resolutions must be multiples of image_size = {self.image_size}; got "
                f"{list(self.candidate_resolutions)}."
            )

    @classmethod
    def from_config(cls, config: Any) -> DeepseekVL2Images:
        """The processor that belongs to a `DeepseekVL2Config`."""
        return cls(
            image_size=config.vision_config.image_size,
            patch_size=config.vision_config.patch_size,
            downsample_ratio=config.downsample_ratio,
            candidate_resolutions=tuple(
                (pair[0], pair[1]) for pair in config.candidate_resolutions
            ),
        )

    @property
    def side(self) -> int:
        """Visual tokens along the side of a tile, newline not counted; 14 as published."""
        return math.ceil(self.image_size // self.patch_size / self.downsample_ratio)

    def token_count(self, crop: tuple[int, int]) -> int:
        """Visual tokens of an image that is cut into (width, height) tiles.

        >>> DeepseekVL2Images().token_count((1, 1))
        421
        """
        width, height = crop
        local = height * self.side * (width * self.side + 1)
        return self.side * (self.side + 1) + 1 + local

    def crop(self, size: tuple[int, int], images: int = 1) -> tuple[int, int]:
        """Tiles in (width, height) for an image of `size` in a prompt of `images` images."""
        if images > self.max_cropped:
            return 1, 1
        width, height = best_resolution(size, self.candidate_resolutions)
        return width // self.image_size, height // self.image_size

    def _cut(self, view: Image.Image) -> Tensor:
        """(width, height) tiles of a view, row by row: (height * width, 3, size, size)."""
        pixels = torch.from_numpy(np.array(view, dtype=np.float32)) / 255
        size = self.image_size
        tiles = pixels.view(view.height // size, size, view.width // size, size, 3)
        return ((tiles - self.mean) / self.std).permute(0, 2, 4, 1, 3).flatten(0, 1)

    def __call__(self, samples: Sequence[Sequence[Image.Image]]) -> Tiles:
        """Cut the images of a batch.

        Args:
            samples: For each prompt its images, in their order there; none is fine.

        Raises:
            UserError: An image has no pixels.
        """
        size = self.image_size
        fill = (int(self.mean * 255),) * 3
        pixels = [torch.zeros(0, 3, size, size)]
        crops, global_areas, local_areas = [], [], []
        for images in samples:
            for image in images:
                if not image.width * image.height:
                    raise UserError(f"An image must have pixels; got one of size {image.size}.")
                rgb = image.convert("RGB")
                width, height = self.crop(rgb.size, len(images))
                global_view, global_area = letterbox(rgb, (size, size), fill)
                local_view, local_area = letterbox(rgb, (width * size, height * size), fill)
                pixels += [self._cut(global_view), self._cut(local_view)]
                crops.append((width, height))
                global_areas.append(global_area)
                local_areas.append(local_area)
        return Tiles(
            torch.cat(pixels),
            torch.tensor(crops, dtype=torch.long).view(-1, 2),
            [self.token_count(crop) for crop in crops],
            global_areas,
            local_areas,
        )
