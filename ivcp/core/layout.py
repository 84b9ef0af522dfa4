"""Where the visual tokens of a prompt stand, what they show, and which text asks about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ivcp.core.types import Box

Kind = Literal["image", "thumbnail", "tile", "frame"]
"""What a grid shows: a whole image, a whole image beside its tiles, a part, a moment of a video."""


@dataclass(frozen=True)
class Grid:
    """A rectangle of visual tokens, row by row.

    Attributes:
        start: Index into the prompt of the first token.
        rows: Rows of tokens.
        columns: Columns of tokens.
        kind: What the grid shows.
        step: Prompt tokens from one row to the next; 0 for `columns`, which leaves no room for a
            structural token (a newline) behind each row.
        area: What it shows of its image, as fractions of width and height; beyond 0 .. 1 where it
            shows padding.
        by_row: Whether each row, instead of the whole grid, has its own reference points.
    """

    start: int
    rows: int
    columns: int
    kind: Kind = "image"
    step: int = 0
    area: Box = (0.0, 0.0, 1.0, 1.0)
    by_row: bool = False

    @property
    def length(self) -> int:
        """Number of visual tokens."""
        return self.rows * self.columns

    @cached_property
    def tokens(self) -> Tensor:
        """(rows * columns,) ascending prompt indices, on the CPU."""
        first = self.start + torch.arange(self.rows) * (self.step or self.columns)
        return (first[:, None] + torch.arange(self.columns)).flatten()

    @cached_property
    def centers(self) -> Tensor:
        """(rows * columns, 2) x and y of each token's centre, as fractions of the image."""
        x1, y1, x2, y2 = self.area
        x = x1 + (torch.arange(self.columns) + 0.5) * ((x2 - x1) / self.columns)
        y = y1 + (torch.arange(self.rows) + 0.5) * ((y2 - y1) / self.rows)
        return torch.stack([x.repeat(self.rows), y.repeat_interleave(self.columns)], 1)


@dataclass(frozen=True)
class ImageLayout:
    """The visual tokens of one image or video; a budget holds for all its grids together.

    Attributes:
        grids: Its grids, in prompt order; at most one is a thumbnail.
        number: Which of the images (or videos) in the model's inputs it is; where the vision tower
            takes tiles for images, its first tile.
    """

    grids: tuple[Grid, ...]
    number: int = field(default=0, compare=False)

    @property
    def length(self) -> int:
        """Number of visual tokens, `V`."""
        return sum(grid.length for grid in self.grids)

    @cached_property
    def tokens(self) -> Tensor:
        """(V,) ascending prompt indices, on the CPU; structural tokens are not among them."""
        return torch.cat([grid.tokens for grid in self.grids])

    @property
    def start(self) -> int:
        """Index into the prompt of the first visual token."""
        return self.grids[0].start

    @property
    def stop(self) -> int:
        """Index into the prompt of the token behind the last visual token."""
        return int(self.grids[-1].tokens[-1]) + 1

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First own index and number of tokens of each grid."""
        spans, first = [], 0
        for grid in self.grids:
            spans.append((first, grid.length))
            first += grid.length
        return tuple(spans)

    @cached_property
    def reference_groups(self) -> tuple[tuple[int, int], ...]:
        """First own index and number of tokens of what has its own reference points."""
        groups = []
        for grid, (first, count) in zip(self.grids, self.spans, strict=True):
            width = grid.columns if grid.by_row else count
            groups += [(start, width) for start in range(first, first + count, width)]
        return tuple(groups)

    @cached_property
    def global_view(self) -> tuple[int, int]:
        """First own index and number of the tokens that show everything once: the thumbnail's."""
        kinds = [grid.kind for grid in self.grids]
        return self.spans[kinds.index("thumbnail")] if "thumbnail" in kinds else (0, self.length)

    @cached_property
    def thumbnail_index(self) -> Tensor:
        """(V,) for each token, which token of the global view shows its centre; on the CPU."""
        first, count = self.global_view
        if count == self.length:
            return torch.arange(count)
        whole = self.grids[self.spans.index(self.global_view)]
        corner, far = torch.tensor(whole.area[:2]), torch.tensor(whole.area[2:])
        size = torch.tensor([whole.columns, whole.rows])
        places = torch.cat([grid.centers for grid in self.grids])
        cell = ((places - corner) / (far - corner) * size).floor().long()
        cell = cell.clamp(torch.zeros_like(size), size - 1)
        index = cell[:, 1] * whole.columns + cell[:, 0]
        index[first : first + count] = torch.arange(count)
        return index

    @property
    def padded(self) -> bool:
        """Whether a grid shows anything outside the image."""
        return any(not 0 <= edge <= 1 for grid in self.grids for edge in grid.area)

    @cached_property
    def on_padding(self) -> Tensor:
        """(V,) whether the centre of a token lies outside the image; on the CPU."""
        places = torch.cat([grid.centers for grid in self.grids])
        return ((places < 0) | (places > 1)).any(1)


@dataclass(frozen=True)
class PromptLayout:
    """One sample's prompt, padding not counted.

    Attributes:
        length: Number of tokens, `S`.
        images: The images, in prompt order.
        markers: Indices into the prompt, on the CPU, of structural tokens: what frames images
            (such as `<|vision_start|>`) and what separates rows and views. They are neither visual
            tokens nor text queries, and never leave.
        query_offset: Tokens behind an image that do not ask about it: the reference leaves out the
            closing vision token and the token after it (2 for Qwen).
    """

    length: int
    images: tuple[ImageLayout, ...]
    markers: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    query_offset: int = 2

    @cached_property
    def text(self) -> Tensor:
        """Ascending prompt indices, on the CPU, of all that is no visual token."""
        rest = torch.ones(self.length, dtype=torch.bool)
        for image in self.images:
            rest[image.tokens] = False
        return rest.nonzero()[:, 0]

    def text_queries(self, image: ImageLayout) -> Tensor:
        """(T,) ascending prompt indices, on the CPU, of the text tokens that ask about `image`.

        All text behind the image but its first `query_offset` tokens; other images and markers are
        no text. In a prompt that ends sooner, its last token that is no visual token asks; a
        prompt of visual tokens alone has none.
        """
        asks = torch.zeros(self.length, dtype=torch.bool)
        asks[self.text] = True
        asks[: image.stop + self.query_offset] = False
        asks[self.markers] = False
        queries = asks.nonzero()[:, 0]
        return queries if len(queries) else self.text[-1:]
