"""Views of the single frames of a video, so that a budget holds for each of them.

A method decides on a frame as it does on an image; the selections of the frames are put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ivcp.core.selection import Selection
from ivcp.core.transfer import to_device
from ivcp.core.view import TEXT_AND_VISUAL, VISUAL_AXIS, View

Decide = Callable[[Sequence[View]], Sequence[Selection]]
"""Gives a selection for each view."""


@dataclass
class _Video:
    """Remembers what the views of its frames read in common."""

    view: View
    read: dict[Any, Any] = field(default_factory=dict)

    def signal(self, name: str, *args: Any, **settings: Any) -> Any:
        read = getattr(self.view, name)
        if any(isinstance(value, Tensor) for value in (*args, *settings.values())):
            return read(*args, **settings)
        key = (name, args, tuple(sorted(settings.items())))
        if key not in self.read:
            self.read[key] = read(*args, **settings)
        return self.read[key]


class FrameView:
    """Implements `View` for one frame of a video; its text queries are those of the video.

    Attributes:
        image: The frame, alone.
        tokens: (V,) which of the video's current tokens are those of the frame.
        notes: Tensors that earlier stages stored for this frame.
    """

    def __init__(self, video: _Video, number: int, tokens: Tensor) -> None:
        layout = video.view.image
        self.image = replace(layout, grids=(layout.grids[number],))
        self.tokens = tokens
        self._video, self._number = video, number
        self._start, count = layout.frames[number]
        self._stop = self._start + count
        self.notes = {
            name.removeprefix(self._prefix): note
            for name, note in video.view.notes.items()
            if name.startswith(self._prefix)
        }

    @property
    def _prefix(self) -> str:
        return f"frame {self._number}/"

    @property
    def index(self) -> Tensor:
        """(V,) index of each current token into the frame."""
        return self._video.view.index[self.tokens] - self._start

    def keep_notes(self) -> None:
        """Store the frame's notes among those of the video."""
        notes = {f"{self._prefix}{name}": note for name, note in self.notes.items()}
        self._video.view.notes.update(notes)

    def embeddings(self) -> Tensor:
        """(V0, C)."""
        states: Tensor = self._video.signal("embeddings")
        return states[self._start : self._stop]

    def other_values(self) -> Tensor:
        """(G, O, D), the text first."""
        _, visual = self._video.signal("values")
        inside = torch.ones(visual.shape[1], dtype=torch.bool, device=visual.device)
        order = inside.index_fill(0, self.tokens, False).sort(descending=True, stable=True).indices
        frames = visual[:, order[: visual.shape[1] - len(self.tokens)]]
        return torch.cat([self._video.signal("other_values"), frames], 1)

    def tower_cls(self) -> Tensor | None:
        """(1, F) features of the frame's [CLS], or None."""
        rows: Tensor | None = self._video.signal("tower_cls")
        if rows is None or len(rows) != len(self._video.view.image.grids):
            return None
        return rows[self._number][None]

    def __getattr__(self, name: str) -> Any:
        if name in TEXT_AND_VISUAL:
            return lambda: self._of_frame(name)
        if name not in VISUAL_AXIS:
            return getattr(self._video.view, name)
        return lambda *args, **settings: self._video.signal(name, *args, **settings).index_select(
            VISUAL_AXIS[name], self.tokens
        )

    def _of_frame(self, name: str) -> tuple[Tensor, Tensor]:
        text, visual = self._video.signal(name)
        return text, visual[:, self.tokens]


def by_frame(views: Sequence[View], decide: Decide) -> list[Selection]:
    """Selections of the images of a sample, of which videos are decided frame by frame."""
    groups: list[list[Any]] = []
    for view in views:
        frames = len(view.image.frames)
        if frames == 1:
            groups.append([view])
            continue
        video = _Video(view)
        groups.append([FrameView(video, n, t) for n, t in enumerate(_tokens_by_frame(view))])
    selections = iter(decide([view for group in groups for view in group]))
    return [_together(group, selections) for group in groups]


def _tokens_by_frame(view: View) -> Sequence[Tensor]:
    """For each frame, which of a video's current tokens it has."""
    index, frames = view.index, view.image.frames
    counts = [count for _, count in frames]
    numbers = torch.arange(len(index), device=index.device)
    if len(index) == view.image.length:
        return torch.split(numbers, counts)
    frame_of = torch.arange(len(frames)).repeat_interleave(torch.tensor(counts))
    frame = to_device(frame_of, index.device)[index]
    # how many tokens of a frame are left is known on the device alone
    left: list[int] = torch.bincount(frame, minlength=len(frames)).tolist()
    return torch.split(frame.sort(stable=True).indices, left)


def _together(group: Sequence[Any], selections: Iterator[Selection]) -> Selection:
    """The selection of a video, made of those of its frames."""
    answers = [next(selections) for _ in group]
    if not isinstance(group[0], FrameView):
        return answers[0]
    for frame in group:
        frame.keep_notes()
    pairs = list(zip(group, answers, strict=True))
    keep, order = torch.cat([frame.tokens[answer.keep] for frame, answer in pairs]).sort()
    names = dict.fromkeys(name for answer in answers for name in answer.reasons or ())
    reasons = {
        name: torch.cat([
            (answer.reasons or {}).get(name, torch.zeros_like(answer.keep, dtype=torch.bool))
            for answer in answers
        ])[order]
        for name in names
    }  # fmt: skip
    states = None
    if any(answer.states is not None for answer in answers):
        states = torch.cat([
            frame.hidden()[answer.keep] if answer.states is None else answer.states
            for frame, answer in pairs
        ])[order]  # fmt: skip
    merged = [
        (frame.tokens[answer.merged_at], answer.merged_states, answer.merged_before)
        for frame, answer in pairs
        if answer.merged_at is not None and answer.merged_states is not None
    ]
    if not merged:
        return Selection(keep, reasons or None, states)
    return Selection(
        keep,
        reasons or None,
        states,
        merged_at=_front_first([(at, before) for at, _, before in merged]),
        merged_states=_front_first([(new, before) for _, new, before in merged]),
        merged_before=sum(before for _, _, before in merged),
    )


def _front_first(parts: Sequence[tuple[Tensor, int]]) -> Tensor:
    """The rows of all parts, those before each part's number in front of all others."""
    front = [rows[:before] for rows, before in parts]
    return torch.cat(front + [rows[before:] for rows, before in parts])
