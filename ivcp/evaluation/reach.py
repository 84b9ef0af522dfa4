"""What the kept tokens still reach: the object that was asked for, and the whole image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import hypot, isfinite
from typing import Any

import numpy as np
import torch

from ivcp.core.layout import ImageLayout
from ivcp.core.types import Box, Sample


def reached(
    sample: Sample, images: Sequence[ImageLayout], kept_after: Iterable[Iterable[int]]
) -> dict[str, tuple[float, ...]]:
    """Fields of a prediction: `kept_in_box` and `coverage` behind each stage.

    Args:
        sample: The question; its true box, if it has one, lies in its last image.
        images: Layouts of its images, areas in fractions of the originals.
        kept_after: For each stage, prompt indices of the visual tokens that remain.
    """
    if not images:
        return {}
    stages = [set(kept) for kept in kept_after]
    fields = {"coverage": tuple(coverage(images, kept) for kept in stages)}
    box: Any = sample.answer
    if sample.task == "grounding" and sample.images and all(map(isfinite, box)):
        size = sample.images[-1].size
        fields["kept_in_box"] = tuple(kept_in_box(images[-1], kept, box, size) for kept in stages)
    return fields


def kept_in_box(image: ImageLayout, kept: set[int], box: Box, size: tuple[int, int]) -> float:
    """Fraction of the visual tokens inside a box that were kept.

    Tokens whose centres lie in the box are inside it; if there are none, the nearest one is.

    Args:
        image: Layout of the image, areas in fractions of the original.
        kept: Prompt indices of kept visual tokens.
        box: In pixels of the original image.
        size: Width and height in pixels of the original image.
    """
    corners = torch.tensor(box) / torch.tensor([*size, *size])
    beyond = (corners[:2] - image.centers).clamp_min(0) + (image.centers - corners[2:]).clamp_min(0)
    distance = beyond.norm(dim=1)
    inside = image.tokens[distance <= distance.min()].tolist()
    return len(kept.intersection(inside)) / len(inside)


def coverage(images: Sequence[ImageLayout], kept: set[int]) -> float:
    """The largest distance from a visual token to the nearest kept one, in diagonals of the image.

    Distances lie between centres, in an image whose tokens are square; tokens that show padding
    need none near them. 0 where all tokens are kept, 1 for an image of which none is. Of several
    images the largest one counts, and all frames of a video are one image.

    Args:
        images: Layouts of the images, at least one.
        kept: Prompt indices of kept visual tokens.
    """
    return max(_radius(image, kept) for image in images)


def _radius(image: ImageLayout, kept: set[int]) -> float:
    remains = torch.tensor([token in kept for token in image.tokens.tolist()])
    asked = ~remains & ~image.on_padding
    if not asked.any():
        return 0.0
    if not remains.any():
        return 1.0
    from scipy.spatial import KDTree  # it takes long to import

    grid = next((grid for grid in image.grids if grid.kind != "thumbnail"), image.grids[0])
    x1, y1, x2, y2 = grid.area
    width, height = grid.columns / (x2 - x1), grid.rows / (y2 - y1)  # of the image, in tokens
    points = image.centers * torch.tensor([width, height])
    nearest, _ = KDTree(points[remains].numpy()).query(points[asked].numpy())
    return min(1.0, float(np.max(nearest)) / hypot(width, height))
