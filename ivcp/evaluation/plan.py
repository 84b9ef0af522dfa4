"""Which batches a data set is cut into, and which process evaluates which of them."""

from __future__ import annotations

import heapq
from collections.abc import Container, Sequence

Numbers = tuple[int, ...]
"""Indices of the samples of a batch into the data set."""


def cut(samples: int, batch_size: int) -> list[Numbers]:
    """Batches of samples in the order of the data set; only the last may be smaller.

    They do not depend on the number of processes, so neither do padding and rounding.

    >>> cut(5, 2)
    [(0, 1), (2, 3), (4,)]
    """
    whole = range(samples)
    return [tuple(whole[first : first + batch_size]) for first in range(0, samples, batch_size)]


def unfinished(batches: Sequence[Numbers], done: Container[int]) -> list[Numbers]:
    """Batches of which not all samples are done; they are evaluated anew as a whole."""
    return [batch for batch in batches if not all(number in done for number in batch)]


def share(costs: Sequence[float], processes: int) -> list[list[int]]:
    """Places of the batches that each process evaluates, ascending; every place once.

    The costliest batch goes first, each to the process that has least so far. The process that has
    the first batch is the first one.

    Args:
        costs: What each batch is expected to cost, in any unit.
        processes: How many share them, at least 1.

    >>> share([1, 1, 5, 2, 1], 2)
    [[0, 1, 3, 4], [2]]
    """
    loads = [(0.0, process) for process in range(processes)]
    shares: list[list[int]] = [[] for _ in range(processes)]
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        load, process = heapq.heappop(loads)
        shares[process].append(place)
        heapq.heappush(loads, (load + costs[place], process))
    return sorted(map(sorted, shares), key=lambda own: own[:1] or [len(costs)])
