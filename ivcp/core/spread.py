"""Tokens that are spread over an image, whatever it shows: farthest-point sampling."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ivcp.core.layout import Grid, ImageLayout

STEPS = 64  # of a token, in which positions are whole numbers, so that equal distances are equal


@lru_cache(maxsize=256)
def spread_tokens(grids: tuple[Grid, ...], target: int) -> Tensor:
    """(target,) ascending indices into an image's tokens, on the CPU; see `FarthestPoint`."""
    spans = ImageLayout(grids).spans
    total = sum(count for _, count in spans)
    if target >= total:
        return torch.arange(total)
    keep, seen, spent = [], 0, 0
    for part in _parts(grids):
        tokens = torch.cat([torch.arange(*_ends(spans[number])) for number in part])
        seen += len(tokens)
        share = target * seen // total - spent
        spent += share
        keep.append(tokens[_farthest([grids[number] for number in part], share)])
    return torch.cat(keep).sort().values


@lru_cache(maxsize=256)
def spread_rank(grids: tuple[Grid, ...]) -> Tensor:
    """(V,) when each token of an image is taken, as a fraction of its part, on the CPU."""
    spans = ImageLayout(grids).spans
    rank = torch.empty(sum(count for _, count in spans))
    for part in _parts(grids):
        tokens = torch.cat([torch.arange(*_ends(spans[number])) for number in part])
        order = _farthest([grids[number] for number in part], len(tokens))
        rank[tokens[order]] = torch.arange(len(tokens)) / len(tokens)
    return rank


def _parts(grids: Sequence[Grid]) -> list[list[int]]:
    """Numbers of the grids that are sampled together."""
    apart = [[n] for n, grid in enumerate(grids) if grid.kind in ("thumbnail", "frame")]
    joined = [n for n, grid in enumerate(grids) if grid.kind not in ("thumbnail", "frame")]
    return sorted([joined, *apart] if joined else apart)


def _ends(span: tuple[int, int]) -> tuple[int, int]:
    start, count = span
    return start, start + count


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
