"""Where the visual tokens of a prompt stand, what they show, and which text queries them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ivcp.core.types import Box

Kind = Literal["image", "thumbnail", "tile", "frame"]
"""What a grid shows: an image, an image beside its tiles, one of its tiles, a moment of a video."""


@dataclass(frozen=True)
class Grid:
    """A rectangle of visual tokens, row by row.

    Attributes:
        start: Index of its first token in the prompt.
        rows: Rows of tokens.
        columns: Columns of tokens.
        kind: What the grid shows.
        step: Prompt tokens from one row to the next; 0 stands for `columns`, that is for rows
            without a structural token (a newline) behind them.
        area: What it shows of its image, as fractions of width and height; beyond 0 .. 1 where it
            shows padding.
        by_row: Whether each row has its own IVC tokens, instead of the grid as one.
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
        starts = self.start + torch.arange(self.rows) * (self.step or self.columns)
        return (starts[:, None] + torch.arange(self.columns)).flatten()

    @cached_property
    def centers(self) -> Tensor:
        """(rows * columns, 2) x and y of each token's centre, as fractions of the image."""
        x1, y1, x2, y2 = self.area
        x = x1 + (torch.arange(self.columns) + 0.5) * ((x2 - x1) / self.columns)
        y = y1 + (torch.arange(self.rows) + 0.5) * ((y2 - y1) / self.rows)
        return torch.stack([x.repeat(self.rows), y.repeat_interleave(self.columns)], 1)


@dataclass(frozen=True)
class ImageLayout:
    """The visual tokens of one image or video; its grids share one budget.

    The image's visual tokens are numbered 0 .. V-1 in prompt order: "index into the image".

    Attributes:
        grids: Its grids, in prompt order; at most one is a thumbnail.
        number: Number of the image (or video) among those in the model's inputs; where the vision
            tower counts tiles as images, the number of its first tile.
    """

    grids: tuple[Grid, ...]
    number: int = field(default=0, compare=False)

    @property
    def length(self) -> int:
        """Number of visual tokens, `V`."""
        return sum(grid.length for grid in self.grids)

    @cached_property
    def tokens(self) -> Tensor:
        """(V,) ascending prompt indices, on the CPU, without structural tokens."""
        return torch.cat([grid.tokens for grid in self.grids])

    @property
    def start(self) -> int:
        """Index of the first visual token in the prompt."""
        return self.grids[0].start

    @property
    def stop(self) -> int:
        """Prompt index of the token behind the last visual token."""
        return int(self.grids[-1].tokens[-1]) + 1

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """For each grid, the index of its first token in the image, and its number of tokens."""
        spans, start = [], 0
        for grid in self.grids:
            spans.append((start, grid.length))
            start += grid.length
        return tuple(spans)

    @property
    def frames(self) -> tuple[tuple[int, int], ...]:
        """(start, count) in the image of each frame of a video; an image is a single frame."""
        return self.spans if self.grids[0].kind == "frame" else ((0, self.length),)

    @cached_property
    def reference_groups(self) -> tuple[tuple[int, int], ...]:
        """(start, count) in the image of each group of tokens that has its own IVC tokens."""
        groups = []
        for grid, (start, count) in zip(self.grids, self.spans, strict=True):
            size = grid.columns if grid.by_row else count
            groups += [(index, size) for index in range(start, start + count, size)]
        return tuple(groups)

    @cached_property
    def global_view(self) -> tuple[int, int]:
        """(start, count) in the image of the tokens that show all of it once: the thumbnail's."""
        kinds = [grid.kind for grid in self.grids]
        return self.spans[kinds.index("thumbnail")] if "thumbnail" in kinds else (0, self.length)

    @cached_property
    def thumbnail_index(self) -> Tensor:
        """(V,) for each token, which token of the global view shows its centre; on the CPU."""
        start, count = self.global_view
        if count == self.length:
            return torch.arange(count)
        thumbnail = self.grids[self.spans.index(self.global_view)]
        corner, far = torch.tensor(thumbnail.area[:2]), torch.tensor(thumbnail.area[2:])
        size = torch.tensor([thumbnail.columns, thumbnail.rows])
        cell = ((self.centers - corner) / (far - corner) * size).floor().long()
        cell = cell.clamp(torch.zeros_like(size), size - 1)
        index = cell[:, 1] * thumbnail.columns + cell[:, 0]
        # rounding may put a thumbnail token's own centre into a neighbouring cell
        index[start : start + count] = torch.arange(count)
        return index

    @property
    def padded(self) -> bool:
        """Whether a grid shows anything outside the image."""
        return any(not 0 <= edge <= 1 for grid in self.grids for edge in grid.area)

    @cached_property
    def on_padding(self) -> Tensor:
        """(V,) whether the centre of a token lies outside the image; on the CPU."""
        return ((self.centers < 0) | (self.centers > 1)).any(1)

    def on_original(self, visible: Box) -> ImageLayout:
        """The layout with areas in fractions of the original image.

        Args:
            visible: What the model sees, of which the present areas are fractions, as fractions of
                the original image.
        """
        left, top, right, bottom = visible
        width, height = right - left, bottom - top

        def moved(area: Box) -> Box:
            x1, y1, x2, y2 = area
            return left + x1 * width, top + y1 * height, left + x2 * width, top + y2 * height

        return ImageLayout(tuple(replace(grid, area=moved(grid.area)) for grid in self.grids))

    @cached_property
    def centers(self) -> Tensor:
        """(V, 2) x and y of each token's centre, as fractions of the image."""
        return torch.cat([grid.centers for grid in self.grids])


@dataclass(frozen=True)
class PromptLayout:
    """One sample's prompt, padding not counted.

    Attributes:
        length: Number of tokens, `S`.
        images: The images, in prompt order.
        markers: Prompt indices, on the CPU, of structural tokens: those around images (such as
            `<|vision_start|>`) and those between rows and views. They are neither visual tokens
            nor text queries, and are always kept.
        query_offset: Tokens right behind an image that are no text queries: the reference leaves
            out the closing vision token and the token after it (2 for Qwen).
    """

    length: int
    images: tuple[ImageLayout, ...]
    markers: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    query_offset: int = 2

    @cached_property
    def text(self) -> Tensor:
        """Ascending prompt indices, on the CPU, of all tokens that are not visual."""
        is_text = torch.ones(self.length, dtype=torch.bool)
        for image in self.images:
            is_text[image.tokens] = False
        return is_text.nonzero()[:, 0]

    def text_queries(self, image: ImageLayout) -> Tensor:
        """(T,) ascending prompt indices, on the CPU, of the text queries of `image`.

        These are all text tokens behind the image, without its next `query_offset` tokens and
        without markers. A prompt that ends sooner has one: its last token that is not visual. A
        prompt of visual tokens alone has none.
        """
        is_query = torch.zeros(self.length, dtype=torch.bool)
        is_query[self.text] = True
        is_query[: image.stop + self.query_offset] = False
        is_query[self.markers] = False
        queries = is_query.nonzero()[:, 0]
        return queries if len(queries) else self.text[-1:]
