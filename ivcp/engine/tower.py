"""Attention, keys and features of a vision tower, read from what entered its blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ivcp.core.devices import to_device
from ivcp.core.errors import UserError
from ivcp.core.tower import VisionTower

SCORES = 2**22
"""Most attention scores that are held at once: 16 MB in float32."""
KEYS = 2**22
"""Most numbers of keys that are copied at once, unless one segment has more."""
STATES = 2**19
"""Most numbers of a block's input that are projected at once; a joint projection triples them."""


class TowerReading:
    """The signals of one call of a vision tower, in the order of its rows.

    Attention is computed anew from a block's input, a few query rows at a time: towers run with
    kernels that never give their weights away. Reading never waits for the device.

    Args:
        tower: How to read the tower.
        call: Arguments with which the images were encoded; small ones are on the CPU.
        captured: For some blocks, the (R, Ct) input and keyword arguments.
        states: (R, Ct) states from which the projector's features are taken.
    """

    def __init__(
        self,
        tower: VisionTower,
        call: Mapping[str, Any],
        captured: Mapping[int, tuple[Tensor, Mapping[str, Any]]],
        states: Tensor,
    ) -> None:
        self.tower, self.call, self.captured, self.states = tower, call, captured, states
        self._attention: dict[tuple[int, str], Tensor] = {}
        self._last_keys: tuple[int, Tensor] | None = None

    def queries(self, choice: Literal["auto", "cls", "all"]) -> Literal["cls", "all"]:
        """Who pays attention: "auto" is [CLS] where the tower has one, else all rows.

        Raises:
            UserError: [CLS] was chosen and the tower has none.
        """
        if choice == "cls" and not self.tower.has_cls:
            raise UserError('This vision tower has no [CLS] token: use queries="all" or "auto".')
        if choice == "auto":
            return "cls" if self.tower.has_cls else "all"
        return choice

    def attention(self, block: int, queries: Literal["cls", "all"]) -> Tensor:
        """(R,) attention that each row receives within its segment, mean over heads, float32.

        Args:
            block: Index of the block, 0 or more.
            queries: Who pays it: the segment's [CLS] row, or all its rows in the mean.

        Raises:
            UserError: [CLS] was chosen and the tower has none.
        """
        who = self.queries(queries)
        if (block, who) not in self._attention:
            self._attention[block, who] = self._received(block, who == "cls")
        return self._attention[block, who]

    @torch.no_grad()
    def keys(self, block: int) -> Tensor:
        """(H, R, D) keys of a block; only those of the block last asked for are kept."""
        if self._last_keys is None or self._last_keys[0] != block:
            self._last_keys = None  # lets go of the others first
            hidden, context = self.captured[block]
            module, some = self.tower.blocks[block], _at_once(STATES, hidden.shape[1])
            keys: Tensor | None = None
            for start in range(0, len(hidden), some):
                rows = slice(start, start + some)
                part = self.tower.keys(module, hidden, rows, context)
                if keys is None:
                    keys = part.new_empty(len(part), len(hidden), part.shape[2])
                keys[:, rows] = part
            if keys is None:
                raise RuntimeError("the tower saw no rows")
            self._last_keys = block, keys
        return self._last_keys[1]

    def features(self) -> Tensor:
        """(R, Ct) states from which the projector's features are taken, [CLS] rows included."""
        return self.states

    @torch.no_grad()
    def token_features(self, patches: Tensor) -> Tensor:
        """(V, P * Ct) states of the patches of each token side by side, zeros over the edge.

        Args:
            patches: (V, P) rows of each token's patches, -1 over the edge.
        """
        rows = to_device(patches, self.states.device)
        found = self.states[rows.clamp_min(0)]  # (V, P, Ct)
        return found.masked_fill_((rows < 0)[..., None], 0).flatten(1)

    @staticmethod
    @torch.no_grad()
    def token_mean(values: Tensor, patches: Tensor) -> Tensor:
        """(..., V) mean of values of rows over the patches of each token.

        Args:
            values: (..., R) values of the tower's rows.
            patches: (V, P) rows of each token's patches, -1 over the edge.
        """
        rows = to_device(patches, values.device)
        found = values[..., rows.clamp_min(0)].masked_fill_(rows < 0, 0)  # (..., V, P)
        mean = found.sum(-1, dtype=torch.float32) / (rows >= 0).sum(-1)
        return mean.to(values.dtype)

    @torch.no_grad()
    def _received(self, block: int, from_cls: bool) -> Tensor:
        """`attention`, a few query rows of one segment or a few whole segments at a time."""
        hidden, context = self.captured[block]
        module, keys = self.tower.blocks[block], self.keys(block)
        scale, heads = self.tower.scale(module), len(keys)
        received = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for length, starts in _by_length(self.tower.segments(block, self.call), len(hidden)):
            count = 1 if from_cls else length
            some = _at_once(SCORES, heads * length)
            if not from_cls:
                some = min(some, _at_once(STATES, hidden.shape[1]))
            together = min(some // count, KEYS // (length * keys[:, 0].numel())) or 1
            step = count if together > 1 else min(some, count)
            for group in _groups(starts, together):
                rows = _rows(group, length, hidden.device)
                segment_keys = keys[:, rows].float().reshape(heads, len(group), length, -1).mT
                total = torch.zeros(len(group), length, device=hidden.device)
                for first in range(0, count, step):
                    width = min(step, count - first)
                    places = [start + first for start in group]
                    query_rows = _rows(places, width, hidden.device)
                    query = self.tower.queries(module, hidden, query_rows, context).float() * scale
                    total += _paid(query.reshape(heads, len(group), width, -1), segment_keys)
                received[rows] = (total / (heads * count)).flatten()
        return received


def _paid(query: Tensor, keys: Tensor) -> Tensor:
    """(G, N) softmax weights of (H, G, M, D) queries over (H, G, D, N) keys, summed over H and M.

    Scores are turned to weights where they stand, and each query's division is done while summing,
    so that no second tensor of their size is made.
    """
    scores = query @ keys  # (H, G, M, N)
    scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    share = scores.sum(-1, keepdim=True).reciprocal_()
    return (share.mT @ scores).sum(0)[:, 0]


def _at_once(limit: int, size: int) -> int:
    """How many of something of a size stay below a limit, at least one."""
    return max(1, limit // size)


def _by_length(lengths: Sequence[int], rows: int) -> list[tuple[int, list[int]]]:
    """Lengths of segments, each with the first rows of all segments that have it."""
    if sum(lengths) != rows:
        raise RuntimeError(f"the tower saw {rows} rows; its segments have {sum(lengths)}")
    found: dict[int, list[int]] = {}
    start = 0
    for length in lengths:
        found.setdefault(length, []).append(start)
        start += length
    return list(found.items())


def _rows(starts: Sequence[int], width: int, device: torch.device) -> slice | Tensor:
    """Rows of runs of equal width: a slice, which copies nothing, where there is one."""
    steps = {after - before for before, after in itertools.pairwise(starts)}
    if steps <= {width}:
        return slice(starts[0], starts[-1] + width)
    if width == 1 and len(steps) == 1:  # the [CLS] rows of tiles of equal size
        return slice(starts[0], starts[-1] + 1, steps.pop())
    rows = torch.tensor(starts)[:, None] + torch.arange(width)
    return to_device(rows.flatten(), device)


def _groups(starts: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """A few segments at a time."""
    for first in range(0, len(starts), size):
        yield starts[first : first + size]
