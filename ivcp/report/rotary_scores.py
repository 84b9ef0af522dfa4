"""V(m) and U(m) of the tokens of a sample, from what its run recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from ivcp.core.rope import rotation_scores
from ivcp.report.comparison import Entry
from ivcp.results.prediction import Prediction

MOST_ANGLES = 20_000_000  # tokens times frequencies


def rotary_scores(entry: Entry, sample: Prediction) -> tuple[Tensor, Tensor] | None:
    """V(m) and U(m) of each visual token of a sample's first image, (V,).

    That takes the run's `rotary`; with three axes (M-RoPE), positions are known of an image of one
    grid. None where that is missing.
    """
    rotary, layout = entry.info.rotary, sample.images[0]
    if rotary is None or layout.length * len(rotary.inverse_frequencies) > MOST_ANGLES:
        return None
    if rotary.axes == 1:
        positions = layout.tokens[None]
    elif rotary.axes == 3 and len(layout.grids) == 1:
        grid, cells = layout.grids[0], torch.arange(layout.length)
        offsets = [torch.zeros_like(cells), cells // grid.columns, cells % grid.columns]
        positions = grid.start + torch.stack(offsets)
    else:
        return None
    scores = rotation_scores(positions, torch.tensor(rotary.inverse_frequencies))
    return scores if torch.stack(scores).isfinite().all() else None
