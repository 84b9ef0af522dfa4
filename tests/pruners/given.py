"""A view of one image whose signals are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ivcp.core.layout import Grid, ImageLayout, Kind
from ivcp.core.plain_view import PlainView


def given_view(*grids: tuple[int, int], **signals: Any) -> PlainView:
    """A view of an image with grids of so many rows and columns, which has these signals."""
    return _view(grids, "image", signals)


def given_video(*frames: tuple[int, int], **signals: Any) -> PlainView:
    """The same of a video with frames of so many rows and columns."""
    return _view(frames, "frame", signals)


def _view(grids: Sequence[tuple[int, int]], kind: Kind, signals: dict[str, Any]) -> PlainView:
    start, made = 0, []
    for rows, columns in grids:
        made.append(Grid(start, rows, columns, kind))
        start += rows * columns
    return PlainView(ImageLayout(tuple(made)), signals, sample_id="sample", layers=32)
