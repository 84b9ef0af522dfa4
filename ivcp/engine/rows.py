"""Bookkeeping of which tokens of each sample are still there, and where."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ivcp.core.layout import PromptLayout
from ivcp.core.selection import ROLES, Selection


@dataclass
class Row:
    """One sample of a running forward pass. All lengths are known on the host.

    Attributes:
        layout: The sample's prompt.
        first: (S,) column of each prompt token in the padded rows that entered layer 0.
        columns: (N,) column of each remaining token in the present, padded rows.
        origin: (N,) index of each remaining token into the sample's own prompt.
        blocks: First token and number of tokens of each image, as indices into `columns`.
        roles: Roles of each image's tokens, indices into `ROLES`.
        notes: For each image, what earlier stages left for later ones.
    """

    layout: PromptLayout
    first: Tensor
    columns: Tensor
    origin: Tensor
    blocks: list[tuple[int, int]]
    roles: list[Tensor]
    notes: list[dict[str, Tensor]] = field(default_factory=list)

    @classmethod
    def begin(cls, layout: PromptLayout, columns: Tensor) -> Row:
        """All tokens are there; `columns` (S,) is where they stand."""
        device = columns.device
        return cls(
            layout=layout,
            first=columns,
            columns=columns,
            origin=torch.arange(layout.length, device=device),
            blocks=[(image.start, image.length) for image in layout.images],
            roles=[
                torch.zeros(image.length, dtype=torch.uint8, device=device)
                for image in layout.images
            ],
            notes=[{} for _ in layout.images],
        )

    def __len__(self) -> int:
        return len(self.columns)

    def chosen(self, selections: list[Selection]) -> Tensor:
        """(N',) which of the present tokens stay, in their new order; updates blocks and roles.

        Text stays. Each image gives its kept tokens and, behind them, its merged ones.
        """
        present = torch.arange(len(self), device=self.columns.device)
        pieces, blocks, cursor, length = [], [], 0, 0
        for number, ((start, count), selection) in enumerate(
            zip(self.blocks, selections, strict=True)
        ):
            before, here = present[cursor:start], present[start : start + count]
            parts = [here[selection.keep]]
            old = self.roles[number]
            roles = [old[selection.keep] if selection.roles is None else selection.roles]
            if selection.merged_at is not None and len(selection.merged_at):
                parts.append(here[selection.merged_at])
                roles.append(
                    torch.full_like(old[: len(selection.merged_at)], ROLES.index("merged"))
                )
            kept = torch.cat(parts)
            self.roles[number] = torch.cat([role.to(torch.uint8) for role in roles])
            blocks.append((length + len(before), len(kept)))
            pieces += [before, kept]
            length += len(before) + len(kept)
            cursor = start + count
        self.blocks = blocks
        return torch.cat([*pieces, present[cursor:]])

    def present(self, tokens: Tensor) -> Tensor:
        """Present columns of text tokens, given as indices into the prompt."""
        shift = torch.zeros_like(tokens)
        for image, (_, count) in zip(self.layout.images, self.blocks, strict=True):
            shift += (tokens >= image.stop) * (image.length - count)
        return self.columns[tokens - shift]

    def kept(self) -> tuple[Tensor, Tensor]:
        """Ascending prompt indices of the surviving visual tokens, and their roles, on the CPU."""
        if not self.blocks:
            return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.uint8)
        origin = torch.cat([self.origin[start : start + count] for start, count in self.blocks])
        ascending, order = origin.sort()
        return ascending.cpu(), torch.cat(self.roles)[order].cpu()


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
    pads = torch.tensor(lengths).to(stacked.device)
    return stacked, torch.arange(longest, device=stacked.device) >= pads[:, None]
