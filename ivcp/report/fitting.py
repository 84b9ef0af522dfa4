"""Tables that are wider than the screen, in parts below each other."""

from __future__ import annotations

from collections.abc import Sequence


def fitting(widths: Sequence[int], first: int, width: int) -> list[list[int]]:
    """Columns of each part; the first columns stand in all of them.

    Args:
        widths: Characters of each column, with the gap behind it.
        first: How many columns say what a row is.
        width: Characters of a line.

    >>> fitting([5, 4, 4, 4], 1, 14), fitting([5, 4, 4, 4], 1, 20)
    ([[0, 1, 2], [0, 3]], [[0, 1, 2, 3]])
    """
    parts: list[list[int]] = []
    room = 0
    for place in range(first, len(widths)):
        if room < widths[place] or not parts:
            parts.append([*range(first)])
            room = width - sum(widths[:first])
        parts[-1].append(place)
        room -= widths[place]
    return parts
