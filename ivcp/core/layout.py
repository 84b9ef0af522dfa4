"""Where the visual tokens of a prompt stand and which text tokens may ask about them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSpan:
    """The visual tokens of one image, contiguous in the prompt, in row-major order.

    Attributes:
        start: Index into the prompt of the first visual token.
        rows: Rows of the visual-token grid.
        columns: Columns of the visual-token grid.
    """

    start: int
    rows: int
    columns: int

    @property
    def length(self) -> int:
        """Number of visual tokens, `V`."""
        return self.rows * self.columns

    @property
    def stop(self) -> int:
        """Index into the prompt of the token behind the last visual token."""
        return self.start + self.length


@dataclass(frozen=True)
class PromptLayout:
    """One sample's prompt, padding not counted.

    Attributes:
        length: Number of tokens, `S`.
        images: The images, in prompt order.
        markers: Indices into the prompt, on the CPU, of tokens that frame images (such as
            `<|vision_start|>`); they are neither visual tokens nor text queries.
        query_offset: Tokens behind an image that do not ask about it: the reference leaves out the
            closing vision token and the token after it (2 for Qwen).
    """

    length: int
    images: tuple[ImageSpan, ...]
    markers: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    query_offset: int = 2

    def text_queries(self, image: ImageSpan) -> Tensor:
        """(T,) ascending prompt indices, on the CPU, of the text tokens that ask about `image`.

        All text behind the image but its first `query_offset` tokens; other images and their
        markers are no text. A prompt that ends sooner is asked about by its last token.
        """
        asks = torch.ones(self.length, dtype=torch.bool)
        asks[: image.stop + self.query_offset] = False
        for other in self.images:
            asks[other.start : other.stop] = False
        asks[self.markers] = False
        queries = asks.nonzero()[:, 0]
        return queries if len(queries) else torch.tensor([self.length - 1])
