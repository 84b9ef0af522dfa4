"""What an image carries from the processor to the model: who prunes it, and where it stands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ivcp.core.layout import Grid
from ivcp.core.rope import grid_positions
from ivcp.integrations.vllm.settings import SAMPLE_ID

FIELD = "ivcp_item"
"""Name of the tensor among an image's fields."""


@dataclass(frozen=True)
class Item:
    """One image of a prompt.

    Attributes:
        settings: The pruner, as `ivcp.integrations.vllm.settings.canonical` writes it.
        rows: Rows of its visual tokens.
        columns: Columns of its visual tokens.
        kept: How many of them remain.
        start: Index of the first of them in the prompt, as it is without pruning.
        position: Position id at which the image begins.
        flat: Whether its tokens are numbered one by one (RoPE) instead of by row and column.
        number: Number of the image in the prompt.
        prompt: Token ids of the complete prompt without pruning, for methods that read the text.
        grids: Rows and columns of all images of the prompt, likewise.
    """

    settings: str
    rows: int
    columns: int
    kept: int
    start: int
    position: int
    flat: bool
    number: int
    prompt: tuple[int, ...] = ()
    grids: tuple[tuple[int, int], ...] = ()

    @property
    def grid(self) -> Grid:
        """The image's visual tokens without pruning."""
        return Grid(self.start, self.rows, self.columns)

    @property
    def length(self) -> int:
        """Visual tokens without pruning."""
        return self.rows * self.columns

    @property
    def advance(self) -> int:
        """Position ids that the image takes."""
        return advance(self.rows, self.columns, self.flat)

    @property
    def positions(self) -> Tensor:
        """(3, V) position ids of all its tokens."""
        if self.flat:
            return (self.position + torch.arange(self.length)).expand(3, -1)
        return grid_positions(self.position, self.grid)

    @property
    def sample_id(self) -> str:
        """Of which seeds are made."""
        return str(json.loads(self.settings).get(SAMPLE_ID, ""))

    @property
    def pruned(self) -> bool:
        """Whether tokens are dropped or changed."""
        return self.settings != "{}"

    def identity(self, reads_start: bool) -> str:
        """What decides the kept tokens beside the image, for caches that know images by a hash.

        Args:
            reads_start: Whether the method reads where the image stands.
        """
        place = [self.start, self.position] if reads_start else []
        text = [self.number, *self.prompt, *self.grids] if self.prompt else []
        return json.dumps([self.settings, self.kept, place, text])

    def tensor(self) -> Tensor:
        """The item as bytes, since vLLM carries numbers alone."""
        return torch.frombuffer(bytearray(json.dumps(asdict(self)).encode()), dtype=torch.uint8)

    @classmethod
    def read(cls, data: Tensor) -> Item:
        """The item of a tensor."""
        fields = json.loads(bytes(data.cpu().tolist()))
        fields["prompt"] = tuple(fields["prompt"])
        fields["grids"] = tuple(map(tuple, fields["grids"]))
        return cls(**fields)


def advance(rows: int, columns: int, flat: bool) -> int:
    """Position ids that an image takes: M-RoPE goes up to its longer side only."""
    return rows * columns if flat else max(rows, columns)


def placed(
    prompt: Sequence[int],
    image_token: int,
    grids: Sequence[tuple[int, int]],
    flat: bool = False,
) -> list[tuple[int, int]]:
    """(start, position) of each image of a prompt that has one token for each image.

    Args:
        prompt: Token ids.
        image_token: Token id of the placeholder.
        grids: Rows and columns of each image's visual tokens.
        flat: As `Item` has it.

    Raises:
        ValueError: The prompt has another number of placeholders.

    >>> placed([1, 9, 2, 9], 9, [(2, 3), (4, 1)])
    [(1, 1), (8, 5)]
    """
    places = [index for index, token in enumerate(prompt) if token == image_token]
    if len(places) != len(grids):
        raise ValueError(
            f"The prompt must have one placeholder for each image; got {len(places)} placeholders "
            f"for {len(grids)} images."
        )
    tokens = positions = 0
    starts = []
    for place, (rows, columns) in zip(places, grids, strict=True):
        starts.append((place + tokens, place + positions))
        tokens += rows * columns - 1
        positions += advance(rows, columns, flat) - 1
    return starts


def expanded(
    prompt: Sequence[int], image_token: int, grids: Sequence[tuple[int, int]]
) -> list[int]:
    """The prompt with all visual tokens of its images.

    >>> expanded([1, 9, 2], 9, [(2, 2)])
    [1, 9, 9, 9, 9, 2]
    """
    lengths = iter(rows * columns for rows, columns in grids)
    ids: list[int] = []
    for token in prompt:
        ids += [token] * (next(lengths) if token == image_token else 1)
    return ids


def prompt_positions(length: int, images: Sequence[tuple[int, int, int]]) -> tuple[Tensor, int]:
    """Position ids of a prompt of which images may be pruned; text keeps its numbers.

    The tokens of a pruned image all get the position of its first token: the model moves each of
    them when it knows which tokens they are (`PrunedVL.forward`).

    Args:
        length: Tokens of the prompt as vLLM has it, after pruning.
        images: (offset, kept tokens, position ids without pruning) of each image, ascending.

    Returns:
        (3, length) position ids, and what is added to a slot's index for the tokens behind.

    >>> positions, delta = prompt_positions(4, [(1, 2, 3)])  # 2 of 6 tokens are left
    >>> positions[0].tolist(), delta
    ([0, 1, 1, 4], 1)
    """
    parts, slot, position = [], 0, 0
    for offset, kept, taken in images:
        text = offset - slot
        parts.append(torch.arange(position, position + text).expand(3, -1))
        position, slot = position + text, offset + kept
        parts.append(torch.full((3, kept), position))
        position += taken
    rest = length - slot
    parts.append(torch.arange(position, position + rest).expand(3, -1))
    return torch.cat(parts, 1), position + rest - length
