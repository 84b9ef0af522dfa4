"""Bookkeeping of which tokens of each sample are still there, and where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ivcp.core.devices import to_device
from ivcp.core.layout import ImageLayout, PromptLayout
from ivcp.core.selection import ROLES, Selection


@dataclass
class Visual:
    """The tokens of one image that are still there.

    Attributes:
        layout: The image's grids.
        places: (V,) indices into the row's present tokens, ascending.
        index: (V,) indices into the image's own tokens.
        tokens: (V0,) prompt indices of the image's own tokens, on the device.
        roles: (V,) indices into `ROLES`.
        notes: What earlier stages left for later ones.
    """

    layout: ImageLayout
    places: Tensor
    index: Tensor
    tokens: Tensor
    roles: Tensor
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
            tokens = to_device(image.tokens, device)
            roles = torch.zeros(image.length, dtype=torch.uint8, device=device)
            index = torch.arange(image.length, device=device)
            images.append(Visual(image, tokens, index, tokens, roles, {}))
        origin = torch.arange(layout.length, device=device)
        return cls(layout, columns, columns, origin, to_device(layout.text, device), images)

    def __len__(self) -> int:
        return len(self.columns)

    def to(self, device: torch.device) -> None:
        """Move the books to where the next stage's layer hands its input over."""
        for name in ("first", "columns", "origin", "text"):
            setattr(self, name, getattr(self, name).to(device))
        for image in self.images:
            for name in ("places", "index", "tokens", "roles"):
                setattr(image, name, getattr(image, name).to(device))
            image.notes = {name: note.to(device) for name, note in image.notes.items()}

    def chosen(self, selections: list[Selection]) -> Tensor:
        """(N',) which of the present tokens stay, in their new order; updates the books.

        Text stays. Each image gives its kept tokens and, behind the last of those that were there,
        its merged ones.
        """
        tokens, keys = [self.text], [2 * self.text]
        for image, selection in zip(self.images, selections, strict=True):
            keep, roles = [selection.keep], [image.roles[selection.keep]]
            if selection.roles is not None:
                roles = [selection.roles.to(torch.uint8)]
            tokens.append(image.places[selection.keep])
            keys.append(2 * tokens[-1])
            if selection.merged_at is not None and (merged := len(selection.merged_at)):
                keep.append(selection.merged_at)
                roles.append(torch.full_like(image.roles[:merged], ROLES.index("merged")))
                tokens.append(image.places[selection.merged_at])
                keys.append((2 * image.places[-1] + 1).expand(merged))
            image.index, image.roles = image.index[torch.cat(keep)], torch.cat(roles)
        order = torch.cat(keys).sort(stable=True).indices
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device)
        stay: Tensor = torch.cat(tokens)[order]
        lengths = [len(self.text), *(len(image.index) for image in self.images)]
        self.text, *visual = torch.split(places, lengths)
        for image, there in zip(self.images, visual, strict=True):
            image.places = there
        return stay

    def queries(self, asking: Tensor) -> Tensor:
        """Present columns of text tokens, given on the CPU as indices into the prompt."""
        rank = torch.searchsorted(self.layout.text, asking)
        return self.columns[self.text[to_device(rank, self.columns.device)]]

    def kept(self) -> tuple[Tensor, Tensor]:
        """Ascending prompt indices of the surviving visual tokens, and their roles, on the CPU."""
        if not self.images:
            return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.uint8)
        origin = torch.cat([image.tokens[image.index] for image in self.images])
        ascending, order = origin.sort()
        return ascending.cpu(), torch.cat([image.roles for image in self.images])[order].cpu()


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
