"""What tests must know of a model family; `tests/expected` holds one file a family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ivcp.core.family import BoxFrame
from ivcp.core.layout import Grid, PromptLayout
from ivcp.core.types import Box

Size = tuple[int, int]
"""Width and height."""
Shown = tuple[Tensor, Grid, Box]
"""(3, height, width) pixels in 0 .. 1, their grid, and the part of the image that they show."""


class Written(NamedTuple):
    """How a perfect model writes boxes.

    Attributes:
        fields: Fields of the family.
        numbers: Gives the four numbers for a box in pixels and the image's size.
        text: Format of the answer.
        iou: Mean IoU that rounding leaves.
    """

    fields: dict[str, Any]
    numbers: Callable[[np.ndarray, Size], Sequence[float]]
    text: str
    iou: float


class Expectation:
    """A family whose images are one square of 6 x 6 tokens in the small model, unless overridden.

    Attributes:
        roles: Tokens with a role, by the name that tokenizers give it.
        special: What else is one token.
        ids: Tokens whose ids the model's configuration holds.
        chat: Chat template of the tokenizer, if the family reads it.
        preprocessor: The published preprocessor file, at the size of the small model.
        full_size: What is different in it at the published size.
        variants: Fields of the family that change where images lie.
        grids: Kind, rows and columns of what the small model's four images become.
        layout_in_pixels: Whether the arrangement of tiles, or padding inside of views, shows in
            pixels alone, so that an image that was encoded outside is refused.
        runs_offloaded: Whether the library's own forward pass works on offloaded weights.
        generates_offloaded: Whether the library's own `generate` works on offloaded weights; of
            some models it encodes images without them.
        equal_frames: Whether all videos of a batch must have as many frames.
        videos_alone: Whether the library takes videos neither beside images nor in beams.
        fill: Blue of padding, in 0 .. 1.
        padding_cut: Whether padding is cut off by whole tokens.
        questions: The wording for grounding ("Left CAT"), for yes or no, and for multiple choice.
        around: What stands before the images, for an image, and behind the question.
        wording: The function of `ivcp/models/wording.py` that words questions, if it is one that
            `tests/models/test_wording.py` knows.
        answers: Texts, and the box that is read from each.
        written: How a perfect model writes boxes.
        units: Width and height of images in the model's boxes.
    """

    roles: dict[str, str]
    special: tuple[str, ...]
    ids: dict[str, str]
    chat: str | None = None
    preprocessor: dict[str, Any]
    full_size: dict[str, Any] = {}
    variants: tuple[dict[str, Any], ...] = ()
    grids: list[list[tuple[str, int, int]]] = [[("image", 6, 6)]] * 4
    layout_in_pixels: bool = False
    runs_offloaded: bool = True
    generates_offloaded: bool = True
    equal_frames: bool = False
    videos_alone: bool = False
    fill: float = 0.0
    padding_cut: bool = False
    questions: tuple[str, str, str]
    around: tuple[str, str, str]
    wording: str | None = None
    answers: list[tuple[str, Any]]
    written: tuple[Written, ...] = ()
    units: float = 1

    def prompt(self, question: str, images: int) -> str:
        """The whole prompt."""
        before, image, behind = self.around
        return before + image * images + question + behind

    def token_count(self, processor: Any, size: Size, images: int) -> int:
        """Image tokens of an image by the library's own code, so far as it knows the model.

        Args:
            processor: The family's, at the small size.
            size: Of the image.
            images: Number of images of the sample.
        """
        return 6 * 6

    def shown(
        self, processor: Any, inputs: dict[str, Tensor], layout: PromptLayout, area: Box, size: Size
    ) -> list[Shown]:
        """What the model is shown of a single image, grid by grid.

        Args:
            processor: The family's, at the small size.
            inputs: Inputs of the model.
            layout: The prompt's.
            area: The visible area, as the family says.
            size: Of the image.
        """
        pixels = raw(processor, inputs["pixel_values"])
        return [(pixels[0], layout.images[0].grids[0], area)]

    def frame(self, family: Any, size: Size) -> BoxFrame:
        """The frame of boxes for an image at the published size."""
        return BoxFrame(self.units, self.units, *size)


def raw(processor: Any, pixels: Tensor) -> Tensor:
    """(..., 3, N, N) pixels in 0 .. 1 of normalised ones."""
    images = processor.images
    mean, std = (torch.tensor(v)[:, None, None] for v in (images.image_mean, images.image_std))
    return pixels * std + mean


def thousandths(box: np.ndarray, size: Size) -> list[int]:
    """The box in thousandths of the image."""
    return np.round(box / np.tile(size, 2) * 1000).astype(int).tolist()


def fractions(box: np.ndarray, size: Size) -> list[float]:
    """The box as fractions of the image."""
    return np.round(box / np.tile(size, 2), 2).tolist()
