"""A pruner's answer, and ways to rank tokens in which ties always go to the lower index."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ivcp.core.transfer import to_device


@dataclass(frozen=True)
class Selection:
    """The visual tokens of one image that are kept, and those that are merged.

    Attributes:
        keep: (K,) ascending indices into the view's current visual tokens.
        reasons: Why tokens are kept: the method's words, such as "ivc", with (K,) truth values. A
            token to which no word applies is "kept"; of several words, the last counts.
        states: (K, C) new hidden states for the kept tokens, or None.
        merged_at: (M,) indices into the view's current visual tokens, disjoint from `keep`; a
            merged token takes the position of the token here. They stand behind the kept ones.
        merged_states: (M, C) hidden states of the merged tokens, in the model's dtype.
        merged_before: Number of merged tokens, from the front of `merged_at`, that stand before the
            kept tokens instead of behind them.
    """

    keep: Tensor
    reasons: Mapping[str, Tensor] | None = None
    states: Tensor | None = None
    merged_at: Tensor | None = None
    merged_states: Tensor | None = None
    merged_before: int = 0

    def __len__(self) -> int:
        """Number of remaining tokens, merged ones included."""
        return len(self.keep) + (0 if self.merged_at is None else len(self.merged_at))


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
    """(count,) the numbers 0 .. count - 1 in random order, on the CPU; `name` is the seed."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode(errors="surrogatepass")))
    return torch.randperm(count, generator=generator)


def ranks(scores: Tensor, groups: Sequence[tuple[int, int]]) -> Tensor:
    """(V,) rank of each token within its group, in the order of `top`.

    Args:
        scores: (V,) scores.
        groups: (start, count) of each group, in order; together they cover all tokens.

    >>> ranks(torch.tensor([1.0, 3.0, 2.0, 0.0, 5.0]), [(0, 3), (3, 2)]).tolist()
    [2, 0, 1, 1, 0]
    """
    order = top(scores, len(scores))
    rank = torch.arange(len(scores), device=scores.device)
    if len(groups) > 1:
        sizes = torch.tensor([count for _, count in groups])
        group = torch.arange(len(groups)).repeat_interleave(sizes)
        starts = torch.tensor([start for start, _ in groups])[group]
        # a stable sort by group keeps the order of scores within each group
        order = order[to_device(group, scores.device)[order].sort(stable=True).indices]
        rank = rank - to_device(starts, scores.device)
    return order.scatter(0, order, rank)  # all are overwritten
