"""Positions of image tokens in the rows of a batch, and the images that they belong to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout


def runs(row: Tensor, token: int) -> list[tuple[int, int]]:
    """(start, length) of each run of a token in (S,) ids."""
    is_token, lengths = torch.unique_consecutive(row == token, return_counts=True)
    stops = lengths.cumsum(0)
    return [
        (stop - length, length)
        for matches, stop, length in zip(
            is_token.tolist(), stops.tolist(), lengths.tolist(), strict=True
        )
        if matches
    ]


def structural(row: Tensor, token: int, images: Sequence[ImageLayout]) -> Tensor:
    """Ascending prompt indices of image tokens that are not visual: newlines and separators."""
    is_structural = row == token
    for image in images:
        is_structural[image.tokens] = False
    return is_structural.nonzero()[:, 0]


def mismatch(in_prompts: int, in_inputs: int, what: str) -> UserError:
    """The error for prompts and inputs that hold different numbers of `what`."""
    return UserError(
        f"The prompts hold {in_prompts} {what}, but the images in the inputs make {in_inputs}: "
        "give one image for each placeholder, and the whole prompt at once."
    )


def repeats(rows: int, in_prompts: int, in_inputs: int, what: str) -> int:
    """How often each row is repeated, at least once: `generate` repeats rows, but not images.

    Args:
        rows: Number of rows.
        in_prompts: Number of `what` in all rows.
        in_inputs: Number of `what` that the inputs make.
        what: "image tokens", for example; for the message.

    Raises:
        UserError: The rows are no repetition.
    """
    times = in_prompts // in_inputs if in_inputs else 0
    if times * in_inputs != in_prompts or rows % (times or 1):
        raise mismatch(in_prompts, in_inputs, what)
    return times or 1


def assign(
    rows: Sequence[Tensor], token: int, lengths: Sequence[int]
) -> list[list[tuple[int, int]]]:
    """For each row, (number of the image, index of its first token) of its images.

    Args:
        rows: (S,) token ids of each row.
        token: The image token.
        lengths: Image tokens of each image of the inputs, in order.

    Raises:
        UserError: The rows hold another number of image tokens than the images need.
    """
    tokens = [(row == token).nonzero()[:, 0] for row in rows]
    count, needed = sum(map(len, tokens)), sum(lengths)
    times = repeats(len(rows), count, needed, "image tokens")
    assigned: list[list[tuple[int, int]]] = []
    image = 0
    for of_row in tokens[::times]:
        images, cursor = [], 0
        while cursor < len(of_row) and image < len(lengths):
            images.append((image, int(of_row[cursor])))
            cursor += lengths[image]
            image += 1
        if cursor != len(of_row) and count == needed:
            raise UserError(
                "The images of the inputs have other sizes than the image tokens of the prompts in "
                "the same order: pass them in the order of their placeholders (transformers before "
                "5.18 mixes up several images of a prompt in beams)."
            )
        if cursor != len(of_row):
            raise mismatch(count, needed, "image tokens")
        assigned += [images] * times
    return assigned
