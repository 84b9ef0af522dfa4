"""A view of one image whose signals are given."""

from __future__ import annotations

from typing import Any

from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.plain_view import PlainView


def given_view(*grids: tuple[int, int], **signals: Any) -> PlainView:
    """A view of an image with grids of so many rows and columns, which has these signals."""
    start, made = 0, []
    for rows, columns in grids:
        made.append(Grid(start, rows, columns))
        start += rows * columns
    return PlainView(ImageLayout(tuple(made)), signals, sample_id="sample", layers=32)
