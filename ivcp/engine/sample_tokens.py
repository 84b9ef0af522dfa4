"""Index bookkeeping: which tokens of each sample remain, and in which columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ivcp.core.layout import ImageLayout, PromptLayout
from ivcp.core.selection import Selection
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

    @classmethod
    def begin(cls, layout: PromptLayout, columns: Tensor) -> SampleTokens:
        """All tokens of a prompt, in (S,) columns."""
        device = columns.device
        images = []
        for image in layout.images:
            # a copy: methods get the layout's tensor, and might write into it
            tokens = to_device(image.tokens, device).clone()
            reasons = torch.zeros(image.length, dtype=torch.uint8, device=device)
            index = torch.arange(image.length, device=device)
            images.append(ImageTokens(image, tokens, index, tokens, reasons, {}))
        origin = torch.arange(layout.length, device=device)
        return cls(layout, columns, columns, origin, to_device(layout.text, device), images)

    def __len__(self) -> int:
        return len(self.columns)

    def to(self, device: torch.device) -> None:
        """Move all indices to the device of the next stage's layer."""
        for name in ("entry_columns", "columns", "origin", "text"):
            setattr(self, name, getattr(self, name).to(device))
        for image in self.images:
            for name in ("ranks", "index", "tokens", "reasons"):
                setattr(image, name, getattr(image, name).to(device))
            image.notes = {name: note.to(device) for name, note in image.notes.items()}

    def apply(self, selections: Sequence[Selection], names: list[str]) -> Tensor:
        """Keep the selected tokens and all text.

        Merged tokens of an image come behind its last remaining token, or before its first.

        Args:
            selections: One for each image.
            names: The list of reasons; new reasons are added to it.

        Returns:
            (N',) indices of the kept tokens into the remaining tokens, in their new order.
        """
        # The new order is a sort by keys. A token's key is twice its index, so the odd keys between
        # two tokens are free for the merged ones. The sort is stable: merged tokens with the same
        # key stay in the order of the selection.
        kept, keys = [self.text], [2 * self.text]
        for image, selection in zip(self.images, selections, strict=True):
            keep, reasons = [selection.keep], [self._reasons(image, selection, names)]
            kept.append(image.ranks[selection.keep])
            keys.append(2 * kept[-1])
            if selection.merged_at is not None and (merged := len(selection.merged_at)):
                keep.append(selection.merged_at)
                reasons.append(torch.full_like(image.reasons[:merged], names.index(MERGED)))
                kept.append(image.ranks[selection.merged_at])
                before = selection.merged_before
                front, back = 2 * image.ranks.amin() - 1, 2 * image.ranks.amax() + 1
                keys += [front.expand(before), back.expand(merged - before)]
            image.index, image.reasons = image.index[torch.cat(keep)], torch.cat(reasons)
        order = torch.cat(keys).sort(stable=True).indices
        ranks = torch.empty_like(order)
        ranks[order] = torch.arange(len(order), device=order.device)
        remaining: Tensor = torch.cat(kept)[order]
        lengths = [len(self.text), *(len(image.index) for image in self.images)]
        self.text, *of_images = torch.split(ranks, lengths)
        for image, image_ranks in zip(self.images, of_images, strict=True):
            image.ranks = image_ranks
        return remaining

    def _reasons(self, image: ImageTokens, selection: Selection, names: list[str]) -> Tensor:
        """(K,) reasons of the kept tokens; a selection without reasons leaves the earlier ones."""
        if selection.reasons is None:
            return image.reasons[selection.keep]
        reasons = torch.zeros_like(selection.keep, dtype=torch.uint8)
        for name, mask in selection.reasons.items():
            if name not in names:
                names.append(name)
            reasons = reasons.masked_fill(mask, names.index(name))
        return reasons

    def query_columns(self, queries: Tensor) -> Tensor:
        """Current columns of text queries, given on the CPU as prompt indices.

        Without queries, the column of the last token.
        """
        if not len(queries):
            return self.columns[-1:]
        number = torch.searchsorted(self.layout.text, queries)  # text is never dropped
        return self.columns[self.text[to_device(number, self.columns.device)]]

    def kept(self, names: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Ascending prompt indices of the kept visual tokens, on the CPU, and their reasons."""
        if not self.images:
            return torch.empty(0, dtype=torch.long), []
        origin = torch.cat([image.tokens[image.index] for image in self.images])
        ascending, order = origin.sort()
        numbers = torch.cat([image.reasons for image in self.images])[order]
        return ascending.cpu(), [names[number] for number in numbers.tolist()]


def pad_left(rows: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Stack rows (N_b,) of indices to (B, P), padded in front with each row's first index.

    Returns:
        The stacked rows, and (B, P) False at padding, or None if all rows are equally long.
    """
    longest = max(len(row) for row in rows)
    if all(len(row) == longest for row in rows):
        return torch.stack(rows), None
    lengths = [longest - len(row) for row in rows]
    stacked = torch.stack(
        [torch.cat([row[:1].expand(pad), row]) for pad, row in zip(lengths, rows, strict=True)]
    )
    pads = to_device(torch.tensor(lengths), stacked.device)
    return stacked, torch.arange(longest, device=stacked.device) >= pads[:, None]
