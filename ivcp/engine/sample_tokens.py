"""Index bookkeeping: which tokens of each sample remain, and in which columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ivcp.core.layout import ImageLayout, PromptLayout
from ivcp.core.transfer import to_device

KEPT, MERGED = "kept", "merged"


@dataclass
class ImageTokens:
    """The remaining tokens of one image.

    Attributes:
        layout: The image's grids.
        ranks: (V,) index of each among the sample's remaining tokens, ascending.
        index: (V,) index of each into the image.
        tokens: (V0,) prompt indices of all tokens of the image, on the device.
        reasons: (V,) why each was kept, as indices into the list of reasons.
        notes: Tensors that earlier stages stored for later ones.
    """

    layout: ImageLayout
    ranks: Tensor
    index: Tensor
    tokens: Tensor
    reasons: Tensor
    notes: dict[str, Tensor]


@dataclass
class SampleTokens:
    """The remaining tokens of one sample; the host knows all lengths without waiting.

    Attributes:
        layout: The sample's prompt.
        entry_columns: (S,) column of each prompt token in the padded rows that entered layer 0.
        columns: (N,) column of each remaining token in the current, padded rows.
        origin: (N,) prompt index of each remaining token.
        text: Index of each token that is not visual among the remaining tokens.
        images: The remaining tokens of each image.
    """

    layout: PromptLayout
    entry_columns: Tensor
    columns: Tensor
    origin: Tensor
    text: Tensor
    images: list[ImageTokens]

    def __len__(self) -> int:
        return len(self.columns)

    def to(self, device: torch.device) -> None:
        """Move all indices to the device of the next stage's layer."""
        if self.columns.device == device:
            return
        for name in ("entry_columns", "columns", "origin", "text"):
            setattr(self, name, getattr(self, name).to(device))
        for image in self.images:
            for name in ("ranks", "index", "tokens", "reasons"):
                setattr(image, name, getattr(image, name).to(device))
            image.notes = {name: note.to(device) for name, note in image.notes.items()}

    def query_columns(self, queries: Tensor) -> Tensor:
        """Current columns of text queries, given on the CPU as prompt indices.

        Without queries, the column of the last token.
        """
        if not len(queries):
            return self.columns[-1:]
        number = torch.searchsorted(self.layout.text, queries)  # text is never dropped
        return self.columns[self.text[to_device(number, self.columns.device)]]

    def remaining_visual(self) -> list[tuple[Tensor, Tensor]]:
        """For each image, prompt indices of its tokens and which of them remain, on the device."""
        return [(image.tokens, image.index) for image in self.images]

    def kept(self, names: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Ascending prompt indices of the kept visual tokens, on the CPU, and their reasons."""
        if not self.images:
            return torch.empty(0, dtype=torch.long), []
        origin = torch.cat([image.tokens[image.index] for image in self.images])
        ascending, order = origin.sort()
        numbers = torch.cat([image.reasons for image in self.images])[order]
        return ascending.cpu(), [names[number] for number in numbers.tolist()]


def all_tokens(
    layouts: Sequence[PromptLayout], mask: Tensor | None, width: int, device: torch.device
) -> list[SampleTokens]:
    """All tokens of the prompts that enter layer 0.

    Args:
        layouts: The prompt of each row.
        mask: (B, S) False at padding, on the CPU; None where nothing is padded.
        width: `S`, columns of the padded rows.
        device: Device of the tokens.
    """
    images = [image for layout in layouts for image in layout.images]
    lengths = [image.length for image in images]
    numbers = torch.arange(max(width, *lengths) if lengths else width, device=device)
    # copies of what the layouts hold, on the device with one transfer
    pieces = [layout.text for layout in layouts] + [image.tokens for image in images]
    if mask is not None:
        pieces += [row.nonzero()[:, 0] for row in mask]
    sizes = [len(piece) for piece in pieces]
    copies = iter(torch.split(to_device(torch.cat(pieces), device), sizes))
    texts = [next(copies) for _ in layouts]
    reasons = torch.split(torch.zeros(sum(lengths), dtype=torch.uint8, device=device), lengths)
    of_images = iter(
        ImageTokens(image, tokens, numbers[: image.length], tokens, none, {})
        for image, tokens, none in zip(images, copies, reasons, strict=False)
    )
    grouped = [[next(of_images) for _ in layout.images] for layout in layouts]
    samples = []
    for layout, text, tokens in zip(layouts, texts, grouped, strict=True):
        columns = numbers[:width] if mask is None else next(copies)
        origin = numbers[: layout.length]
        samples.append(SampleTokens(layout, columns, columns, origin, text, tokens))
    return samples
