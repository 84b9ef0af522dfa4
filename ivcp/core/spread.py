"""Tokens that are spread over an image, whatever it shows: farthest-point sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ivcp.core.layout import Grid, ImageLayout

STEPS = 64  # of a token, in which positions are whole numbers, so that equal distances are equal


@lru_cache(maxsize=256)
def spread_tokens(grids: tuple[Grid, ...], target: int) -> Tensor:
    """(target,) ascending indices into an image's tokens, on the CPU; see `FarthestPoint`."""
    total = ImageLayout(grids).length
    if target >= total:
        return torch.arange(total)
    keep, seen, spent = [], 0, 0
    for part, tokens in _parts(grids):
        seen += len(tokens)
        share = target * seen // total - spent
        spent += share
        keep.append(tokens[_farthest(part, share)])
    return torch.cat(keep).sort().values


@lru_cache(maxsize=256)
def spread_rank(grids: tuple[Grid, ...]) -> Tensor:
    """(V,) when each token of an image is taken, as a fraction of its part, on the CPU."""
    rank = torch.empty(ImageLayout(grids).length)
    for part, tokens in _parts(grids):
        order = _farthest(part, len(tokens))
        rank[tokens[order]] = torch.arange(len(tokens)) / len(tokens)
    return rank


def _parts(grids: tuple[Grid, ...]) -> Iterator[tuple[list[Grid], Tensor]]:
    """The grids that are sampled together, and indices of their tokens into the image."""
    apart = [[n] for n, grid in enumerate(grids) if grid.kind in ("thumbnail", "frame")]
    joined = [n for n, grid in enumerate(grids) if grid.kind not in ("thumbnail", "frame")]
    spans = ImageLayout(grids).spans
    for part in sorted([joined, *apart] if joined else apart):
        tokens = [torch.arange(start, start + count) for start, count in (spans[n] for n in part)]
        yield [grids[n] for n in part], torch.cat(tokens)


def _farthest(grids: Sequence[Grid], count: int) -> Tensor:
    """(count,) indices into the tokens of some grids, in the order in which they are taken."""
    x1, y1, x2, y2 = grids[0].area
    step = torch.tensor([(x2 - x1) / grids[0].columns, (y2 - y1) / grids[0].rows])
    centers = torch.cat([grid.centers for grid in grids])
    positions = ((centers - centers.amin(0)) / step * STEPS).round().long().numpy()  # (V, 2)
    x, y = np.ascontiguousarray(positions.T)
    taken = np.empty(count, dtype=np.int64)
    # twice the distance from the middle, which may lie between two tokens
    nearest = -((2 * x - x.max()) ** 2) - (2 * y - y.max()) ** 2
    for number in range(count):
        token = taken[number] = nearest.argmax()  # the lowest index of equals
        distance = (x - x[token]) ** 2 + (y - y[token]) ** 2
        nearest = np.minimum(nearest, distance) if number else distance
        nearest[token] = -1  # tokens of overlapping tiles may have the distance 0, too
    return torch.from_numpy(taken)
