"""Bookkeeping of which tokens of each sample are still there, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ivcp.core.devices import to_device
from ivcp.core.layout import ImageLayout, PromptLayout
from ivcp.core.selection import Selection

KEPT, MERGED = "kept", "merged"


@dataclass
class Visual:
    """The tokens of one image that are still there.

    Attributes:
        layout: The image's grids.
        places: (V,) indices into the row's present tokens, ascending.
        index: (V,) indices into the image's own tokens.
        tokens: (V0,) prompt indices of the image's own tokens, on the device.
        reasons: (V,) why each was kept, as indices into the pass's list of reasons.
        notes: What earlier stages left for later ones.
    """

    layout: ImageLayout
    places: Tensor
    index: Tensor
    tokens: Tensor
    reasons: Tensor
    notes: dict[str, Tensor]


@dataclass
class Row:
    """One sample of a running forward pass. All lengths are known on the host.

    Attributes:
        layout: The sample's prompt.
        first: (S,) column of each prompt token in the padded rows that entered layer 0.
        columns: (N,) column of each remaining token in the present, padded rows.
        origin: (N,) index of each remaining token into the sample's own prompt.
        text: (S - V,) places of all that is no visual token among the remaining tokens.
        images: What is left of each image.
    """

    layout: PromptLayout
    first: Tensor
    columns: Tensor
    origin: Tensor
    text: Tensor
    images: list[Visual]

    @classmethod
    def begin(cls, layout: PromptLayout, columns: Tensor) -> Row:
        """All tokens are there; `columns` (S,) is where they stand."""
        device = columns.device
        images = []
        for image in layout.images:
            tokens = to_device(image.tokens, device).clone()  # pruners are shown the layout's
            reasons = torch.zeros(image.length, dtype=torch.uint8, device=device)
            index = torch.arange(image.length, device=device)
            images.append(Visual(image, tokens, index, tokens, reasons, {}))
        origin = torch.arange(layout.length, device=device)
        return cls(layout, columns, columns, origin, to_device(layout.text, device), images)

    def __len__(self) -> int:
        return len(self.columns)

    def to(self, device: torch.device) -> None:
        """Move the bookkeeping to where the next stage's layer hands its input over."""
        for name in ("first", "columns", "origin", "text"):
            setattr(self, name, getattr(self, name).to(device))
        for image in self.images:
            for name in ("places", "index", "tokens", "reasons"):
                setattr(image, name, getattr(image, name).to(device))
            image.notes = {name: note.to(device) for name, note in image.notes.items()}

    def chosen(self, selections: Sequence[Selection], names: list[str]) -> Tensor:
        """(N',) which of the present tokens stay, in their new order; updates the bookkeeping.

        Text stays. Each image gives its kept tokens and, behind the last of those that were there
        (or before the first), its merged ones.

        Args:
            selections: One an image.
            names: Reasons in the order of their numbers; new ones are added.
        """
        # Tokens are sorted by keys: twice the place, with merged tokens at the odd keys between.
        tokens, keys = [self.text], [2 * self.text]
        for image, selection in zip(self.images, selections, strict=True):
            keep, reasons = [selection.keep], [self._reasons(image, selection, names)]
            tokens.append(image.places[selection.keep])
            keys.append(2 * tokens[-1])
            if selection.merged_at is not None and (merged := len(selection.merged_at)):
                keep.append(selection.merged_at)
                reasons.append(torch.full_like(image.reasons[:merged], names.index(MERGED)))
                tokens.append(image.places[selection.merged_at])
                before = selection.merged_before
                first, last = 2 * image.places.amin() - 1, 2 * image.places.amax() + 1
                keys += [first.expand(before), last.expand(merged - before)]
            image.index, image.reasons = image.index[torch.cat(keep)], torch.cat(reasons)
        order = torch.cat(keys).sort(stable=True).indices
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device)
        stay: Tensor = torch.cat(tokens)[order]
        lengths = [len(self.text), *(len(image.index) for image in self.images)]
        self.text, *visual = torch.split(places, lengths)
        for image, there in zip(self.images, visual, strict=True):
            image.places = there
        return stay

    def _reasons(self, image: Visual, selection: Selection, names: list[str]) -> Tensor:
        """(K,) numbers of the kept tokens' reasons; without new ones the old ones stand."""
        if selection.reasons is None:
            return image.reasons[selection.keep]
        reasons = torch.zeros_like(selection.keep, dtype=torch.uint8)
        for name, mask in selection.reasons.items():
            if name not in names:
                names.append(name)
            reasons = reasons.masked_fill(mask, names.index(name))
        return reasons

    def queries(self, indices: Tensor) -> Tensor:
        """Present columns of text tokens, given on the CPU as indices into the prompt.

        Where none ask, the last token does.
        """
        if not len(indices):
            return self.columns[-1:]
        rank = torch.searchsorted(self.layout.text, indices)
        return self.columns[self.text[to_device(rank, self.columns.device)]]

    def kept(self, names: Sequence[str]) -> tuple[Tensor, list[str]]:
        """Ascending prompt indices of the surviving visual tokens on the CPU, and why they stay."""
        if not self.images:
            return torch.empty(0, dtype=torch.long), []
        origin = torch.cat([image.tokens[image.index] for image in self.images])
        ascending, order = origin.sort()
        numbers = torch.cat([image.reasons for image in self.images])[order]
        return ascending.cpu(), [names[number] for number in numbers.tolist()]


def pad_left(rows: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Stack rows (N_b,) of indices into (B, P), padded in front with each row's first index.

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
