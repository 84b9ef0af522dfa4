"""A view of one image whose signals are given."""

from __future__ import annotations

from typing import Any

import torch

from ivcp.core.layout import Grid, ImageLayout


class GivenView:
    """Gives the signals that a test names, whatever arguments they are asked with.

    Args:
        grids: Rows and columns of each grid of the image.
        signals: What the view's methods of these names return; a function is called with the
            arguments.
    """

    sample_id = "sample"
    layers = 32

    def __init__(self, *grids: tuple[int, int], **signals: Any) -> None:
        start, made = 0, []
        for rows, columns in grids:
            made.append(Grid(start, rows, columns))
            start += rows * columns
        self.image = ImageLayout(tuple(made))
        self.index, self.notes, self._signals = torch.arange(start), {}, signals

    def __getattr__(self, name: str) -> Any:
        if name not in self._signals:
            raise AttributeError(f"this view has no {name}")
        signal = self._signals[name]
        return signal if callable(signal) else lambda *_, **__: signal
