"""A view of all images of a sample at once, so that one budget holds for them together.

A method decides on it as it does on an image; its selection is taken apart to those of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from ivcp.core.frame_view import Decide
from ivcp.core.layout import ImageLayout
from ivcp.core.selection import Selection
from ivcp.core.transfer import to_device
from ivcp.core.view import TEXT_AND_VISUAL, VISUAL_AXIS, View


class JoinedView:
    """Implements `View` for all images of a sample, one behind the other.

    Each of their grids counts as a frame, so that no grid stands for another one. Text queries are
    those of the last image: the text behind all of them.

    Attributes:
        image: The grids of all images.
        notes: Tensors that earlier stages stored.
    """

    def __init__(self, views: Sequence[View]) -> None:
        grids = [replace(grid, kind="frame") for view in views for grid in view.image.grids]
        self.image = ImageLayout(tuple(grids), views[0].image.number)
        self.notes = views[0].notes
        self._views = views

    @cached_property
    def index(self) -> Tensor:
        """(V,) index of each current token into the joined image."""
        starts, start = [], 0
        for view in self._views:
            starts.append(view.index + start)
            start += view.image.length
        return torch.cat(starts)

    def other_values(self) -> Tensor:
        """(G, O, D) of the text."""
        first = self._views[0]
        return first.other_values()[:, : first.text_tokens]

    def embeddings(self) -> Tensor:
        """(V0, C)."""
        return torch.cat([view.embeddings() for view in self._views])

    def tower_cls(self) -> Tensor | None:
        """(N, F) of the [CLS] tokens of all tiles, or None."""
        rows = [view.tower_cls() for view in self._views]
        return None if any(row is None for row in rows) else torch.cat(cast("list[Tensor]", rows))

    def attention(self, rows: Tensor) -> Tensor:
        """(R, V)."""
        # queries of an image end with those of the last one
        from_end = rows - self._views[-1].text_queries
        return torch.cat([view.attention(from_end + view.text_queries) for view in self._views], 1)

    def mean_attention(self, weights: Tensor) -> Tensor:
        """(V,)."""
        parts = []
        for view in self._views:
            earlier = weights.new_zeros(view.text_queries - len(weights))
            parts.append(view.mean_attention(torch.cat([earlier, weights])))
        return torch.cat(parts)

    def __getattr__(self, name: str) -> Any:
        if name in TEXT_AND_VISUAL:
            return lambda: self._text_and_all(name)
        if name not in VISUAL_AXIS:
            return getattr(self._views[-1], name)
        return lambda *args, **settings: torch.cat(
            [getattr(view, name)(*args, **settings) for view in self._views], VISUAL_AXIS[name]
        )

    def _text_and_all(self, name: str) -> tuple[Tensor, Tensor]:
        pairs = [getattr(view, name)() for view in self._views]
        return pairs[-1][0], torch.cat([visual for _, visual in pairs], 1)


def over_sample(views: Sequence[View], decide: Decide) -> list[Selection]:
    """Selections of the images of a sample that are decided as one.

    An image of which nothing would be left keeps its middle token, instead of the last one of the
    image that keeps most.
    """
    if len(views) < 2:
        return list(decide(views))
    (answer,) = decide([cast("View", JoinedView(views))])
    lengths = [len(view.index) for view in views]
    image_of = torch.arange(len(views)).repeat_interleave(torch.tensor(lengths))
    image_of = to_device(image_of, answer.keep.device)
    merged_of = image_of[answer.keep[:0] if answer.merged_at is None else answer.merged_at]
    before = merged_of[: answer.merged_before]
    # how many tokens of an image are left is known on the device alone
    kinds = (image_of[answer.keep], merged_of, before)
    counts = torch.stack([torch.bincount(kind, minlength=len(views)) for kind in kinds]).tolist()
    selections, start, kept = [], 0, 0
    merged_order = torch.split(merged_of.sort(stable=True).indices, counts[1])
    for number, length in enumerate(lengths):
        here = slice(kept, kept + counts[0][number])
        selections.append(_part(answer, here, merged_order[number], start, counts[2][number]))
        start, kept = start + length, here.stop
    for number, length in enumerate(lengths):
        if not len(selections[number]):
            most = max(range(len(views)), key=lambda image: len(selections[image].keep))
            if len(selections[most].keep) > 1:
                selections[most] = _without_last(selections[most])
            selections[number] = Selection(answer.keep.new_tensor([length // 2]))
    return selections


def _part(answer: Selection, kept: slice, merged: Tensor, start: int, before: int) -> Selection:
    """The selection of one of the images that were decided as one.

    Args:
        answer: The selection of all.
        kept: Which kept tokens are the image's.
        merged: Which merged tokens are.
        start: Number of its first token among those of all images.
        before: Its merged tokens in front of the kept ones.
    """
    reasons = answer.reasons and {name: mask[kept] for name, mask in answer.reasons.items()}
    part = Selection(
        answer.keep[kept] - start, reasons, None if answer.states is None else answer.states[kept]
    )
    if answer.merged_at is None or answer.merged_states is None or not len(merged):
        return part
    at, states = answer.merged_at[merged] - start, answer.merged_states[merged]
    return replace(part, merged_at=at, merged_states=states, merged_before=before)


def _without_last(selection: Selection) -> Selection:
    """The selection without its last kept token."""
    reasons = selection.reasons and {name: m[:-1] for name, m in selection.reasons.items()}
    states = None if selection.states is None else selection.states[:-1]
    return replace(selection, keep=selection.keep[:-1], reasons=reasons, states=states)
