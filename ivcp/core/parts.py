"""The parts of an image as its current tokens form them, complete or behind another method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.transfer import to_device
from ivcp.core.view import View


@dataclass(frozen=True)
class ImageParts:
    """Which of the `V` current tokens of an image belong together.

    Attributes:
        groups: (start, count) of each group of tokens that has its own IVC tokens.
        sizes: Tokens of each group in the complete image.
        whole: (start, count) of the tokens that show all of the image once: the thumbnail's.
        cell: (V,) for each token, which token of `whole` shows its centre.
        padding: (V,) True at tokens that show padding, or None where no token does.
    """

    groups: Sequence[tuple[int, int]]
    sizes: Sequence[int]
    whole: tuple[int, int]
    cell: Tensor
    padding: Tensor | None


def parts_of(view: View) -> ImageParts:
    """The parts of an image; what is left of an image of one grid is one part.

    Raises:
        UserError: Another method has pruned an image of several tiles or frames: how many tokens
            each of them has left is known on the device alone.
    """
    image, index = view.image, view.index
    padding = to_device(image.on_padding, index.device) if image.padded else None
    groups, cell = image.reference_groups, to_device(image.thumbnail_index, index.device)
    sizes, whole = [count for _, count in groups], image.global_view
    if len(index) < image.length:
        if len(groups) > 1 or whole != (0, image.length):
            raise UserError(
                f"An image of {len(image.grids)} tiles or frames can only be pruned by this method "
                "while it is complete: let no other method prune before it, or use a model that "
                "sees an image as one grid."
            )
        whole = (0, len(index))
        groups, cell = (whole,), torch.arange(len(index), device=index.device)
        padding = None if padding is None else padding[index]
    return ImageParts(groups, sizes, whole, cell, padding)
