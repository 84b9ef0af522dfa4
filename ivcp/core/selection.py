"""What a pruner answers, and how to rank tokens without ties going astray."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ivcp.core.devices import to_device

ROLES = ("kept", "ivc", "seed", "foreground", "merged")
"""Why a visual token was kept. `kept` is the role of methods that know no others."""


@dataclass(frozen=True)
class Selection:
    """The visual tokens of one image that stay.

    Attributes:
        keep: (K,) ascending indices into the view's current visual tokens.
        roles: (K,) indices into `ROLES`; None means "kept" throughout.
        merged_at: (M,) indices into the view's current visual tokens, disjoint from `keep`: the
            tokens whose place and position the merged tokens take, behind the kept ones.
        merged_states: (M, C) hidden states of the merged tokens, in the model's dtype.
    """

    keep: Tensor
    roles: Tensor | None = None
    merged_at: Tensor | None = None
    merged_states: Tensor | None = None


def budget(keep_ratio: float, tokens: int) -> int:
    """Number of tokens to keep: `round(keep_ratio * tokens)` (banker's rounding), at least 1.

    >>> budget(0.5, 5), budget(0.5, 7), budget(0.001, 100)
    (2, 4, 1)
    """
    return min(tokens, max(1, round(keep_ratio * tokens)))


def top(scores: Tensor, count: int) -> Tensor:
    """(count,) indices of the largest scores, best first; ties go to the lower index.

    >>> import torch
    >>> top(torch.tensor([1.0, 3.0, 3.0, 2.0]), 2).tolist()
    [1, 2]
    """
    return scores.sort(descending=True, stable=True).indices[:count]


def random_order(name: str, count: int) -> Tensor:
    """(count,) numbers from 0 on in random order, on the CPU; another name gives another order."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return torch.randperm(count, generator=generator)


def ranks(scores: Tensor, windows: Sequence[tuple[int, int]]) -> Tensor:
    """(V,) place of each token in the order of `top`, counted in its own window.

    Args:
        scores: (V,) scores.
        windows: First index and number of tokens of each window; together they cover all tokens.

    >>> ranks(torch.tensor([1.0, 3.0, 2.0, 0.0, 5.0]), [(0, 3), (3, 2)]).tolist()
    [2, 0, 1, 1, 0]
    """
    order = top(scores, len(scores))
    place = torch.arange(len(scores), device=scores.device)
    if len(windows) > 1:
        sizes = torch.tensor([count for _, count in windows])
        window = torch.arange(len(windows)).repeat_interleave(sizes)
        first = torch.tensor([start for start, _ in windows])[window]
        order = order[to_device(window, scores.device)[order].sort(stable=True).indices]
        place = place - to_device(first, scores.device)
    return torch.empty_like(order).scatter_(0, order, place)
