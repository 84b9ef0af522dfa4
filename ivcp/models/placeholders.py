"""Where the image tokens of a batch stand, and which of its images they stand for."""

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
        for found, stop, length in zip(
            is_token.tolist(), stops.tolist(), lengths.tolist(), strict=True
        )
        if found
    ]


def structural(row: Tensor, token: int, images: Sequence[ImageLayout]) -> Tensor:
    """Ascending prompt indices of the image tokens that show nothing: newlines and separators."""
    rest = row == token
    for image in images:
        rest[image.tokens] = False
    return rest.nonzero()[:, 0]


def mismatch(found: int, given: int, what: str) -> UserError:
    """What to say of prompts that hold `found` of something, where the inputs give `given`."""
    return UserError(
        f"The prompts hold {found} {what}, but the images in the inputs make {given}: give one "
        "image for each placeholder, and the whole prompt at once."
    )


def repeats(rows: int, found: int, given: int, what: str) -> int:
    """How often `generate` repeats each row (beams), at least 1; repeated rows share their images.

    Args:
        rows: Number of rows.
        found: How many of something all rows hold.
        given: How many the inputs make.
        what: Of what, for the message.

    Raises:
        UserError: The rows are no repetition.
    """
    times = found // given if given else 0
    if times * given != found or rows % (times or 1):
        raise mismatch(found, given, what)
    return times or 1


def deal(rows: Sequence[Tensor], token: int, lengths: Sequence[int]) -> list[list[tuple[int, int]]]:
    """For each row, (number of the image, start) of the images that stand in it.

    Args:
        rows: (S,) token ids of each row.
        token: The image token.
        lengths: Image tokens of each image of the inputs, in order.

    Raises:
        UserError: The rows hold another number of image tokens than the images need.
    """
    places = [(row == token).nonzero()[:, 0] for row in rows]
    found, needed = sum(map(len, places)), sum(lengths)
    times = repeats(len(rows), found, needed, "image tokens")
    dealt: list[list[tuple[int, int]]] = []
    image = 0
    for own in places[::times]:
        there, cursor = [], 0
        while cursor < len(own) and image < len(lengths):
            there.append((image, int(own[cursor])))
            cursor += lengths[image]
            image += 1
        if cursor != len(own):
            raise mismatch(found, needed, "image tokens")
        dealt += [there] * times
    return dealt
