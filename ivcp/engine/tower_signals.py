"""Attention, keys and features of a vision tower, computed from the inputs of its blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.tower import VisionTower
from ivcp.core.transfer import to_device

SCORES = 2**22
"""Most attention scores that are held at once: 16 MB in float32."""
KEYS = 2**22
"""Most numbers of keys that are copied at once, unless one segment has more."""
STATES = 2**19
"""Most numbers of a block's input that are projected at once; a joint projection triples them."""


class TowerSignals:
    """The signals of one call of a vision tower, in the order of its rows.

    Attention is computed again from a block's input, a few query rows at a time, because the
    tower's attention kernels return no weights. The host never waits for the device.

    Args:
        tower: How to read the tower.
        call: Arguments of the image encoder; small tensors are on the CPU.
        captured: For some blocks, the (R, Ct) input and keyword arguments.
        states: (R, Ct) states from which the projector's features are taken, [CLS] rows included.
    """

    def __init__(
        self,
        tower: VisionTower,
        call: Mapping[str, Any],
        captured: Mapping[int, tuple[Tensor, Mapping[str, Any]]],
        states: Tensor,
    ) -> None:
        self.tower, self.call, self.captured, self.states = tower, call, captured, states
        self._attention: dict[tuple[int, str, str], Tensor] = {}
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

    def attention(
        self,
        block: int,
        queries: Literal["cls", "all"],
        heads: Literal["mean", "joined"] = "mean",
    ) -> Tensor:
        """(R,) attention that each row receives within its segment, float32.

        Args:
            block: Index of the block, 0 or more.
            queries: Who pays it: the segment's [CLS] row, or the mean over all its rows.
            heads: Their mean, or the attention of one head that is all of them side by side.

        Raises:
            UserError: [CLS] was chosen and the tower has none.
        """
        who = self.queries(queries)
        if (block, who, heads) not in self._attention:
            received = self._received(block, who == "cls", heads == "joined")
            self._attention[block, who, heads] = received
        return self._attention[block, who, heads]

    @torch.no_grad()
    def keys(self, block: int) -> Tensor:
        """(H, R, D) keys of a block; those of the last block are held."""
        if self._last_keys is None or self._last_keys[0] != block:
            self._last_keys = None  # frees the memory before the new keys are made
            hidden, context = self.captured[block]
            module, step = self.tower.blocks[block], _at_once(STATES, hidden.shape[1])
            keys: Tensor | None = None
            for start in range(0, len(hidden), step):
                rows = slice(start, start + step)
                chunk = self.tower.keys(module, hidden, rows, context)
                if keys is None:
                    keys = chunk.new_empty(len(chunk), len(hidden), chunk.shape[2])
                keys[:, rows] = chunk
            if keys is None:
                raise RuntimeError("the tower ran on no rows")
            self._last_keys = block, keys
        return self._last_keys[1]

    @torch.no_grad()
    def token_features(self, patches: Tensor) -> Tensor:
        """(V, P * Ct) states of the patches of each token side by side, zeros beyond the edge.

        Args:
            patches: (V, P) rows of each token's patches, -1 beyond the edge.
        """
        rows = to_device(patches, self.states.device)
        states = self.states[rows.clamp_min(0)]  # (V, P, Ct)
        return states.masked_fill_((rows < 0)[..., None], 0).flatten(1)

    @staticmethod
    @torch.no_grad()
    def token_mean(values: Tensor, patches: Tensor) -> Tensor:
        """(..., V) mean of values of rows over the patches of each token.

        Args:
            values: (..., R) values of the tower's rows.
            patches: (V, P) rows of each token's patches, -1 beyond the edge.
        """
        rows = to_device(patches, values.device)
        by_patch = values[..., rows.clamp_min(0)].masked_fill_(rows < 0, 0)  # (..., V, P)
        mean = by_patch.sum(-1, dtype=torch.float32) / (rows >= 0).sum(-1)
        return mean.to(values.dtype)

    @torch.no_grad()
    def _received(self, block: int, from_cls: bool, joined: bool) -> Tensor:
        """`attention`, a few query rows of one segment or a few complete segments at a time."""
        hidden, context = self.captured[block]
        module, keys = self.tower.blocks[block], self.keys(block)
        scale, heads = self.tower.scale(module), len(keys)
        if joined:  # the scale of a head as wide as all of them
            scale /= heads**0.5
        received = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for length, starts in _by_length(self.tower.segments(block, self.call), len(hidden)):
            count = 1 if from_cls else length
            limit = _at_once(SCORES, heads * length)  # query rows
            if not from_cls:
                limit = min(limit, _at_once(STATES, hidden.shape[1]))
            together = min(limit // count, KEYS // (length * keys[:, 0].numel())) or 1  # segments
            step = count if together > 1 else min(limit, count)
            for group in _groups(starts, together):
                rows = _rows(group, length, hidden.device)
                segment_keys = keys[:, rows].float().reshape(heads, len(group), length, -1).mT
                total = torch.zeros(len(group), length, device=hidden.device)
                for offset in range(0, count, step):
                    width = min(step, count - offset)
                    query_starts = [start + offset for start in group]
                    query_rows = _rows(query_starts, width, hidden.device)
                    query = self.tower.queries(module, hidden, query_rows, context).float() * scale
                    query = query.reshape(heads, len(group), width, -1)
                    total += _paid(query, segment_keys, joined)
                received[rows] = (total / ((1 if joined else heads) * count)).flatten()
        return received


def _paid(query: Tensor, keys: Tensor, joined: bool) -> Tensor:
    """(G, N) softmax weights of (H, G, M, D) queries over (H, G, D, N) keys, summed over H and M.

    With `joined`, the softmax is that of the products summed over H, as of heads side by side.

    The softmax is written out: it works in place, and the sum over queries divides by each query's
    total, so that no second tensor of the size of the scores is made.
    """
    scores = query @ keys  # (H, G, M, N)
    if joined:
        scores = scores.sum(0, keepdim=True)
    scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    inverse = scores.sum(-1, keepdim=True).reciprocal_()
    return (inverse.mT @ scores).sum(0)[:, 0]


def _at_once(limit: int, size: int) -> int:
    """How many items of a size fit a limit, at least one."""
    return max(1, limit // size)


def _by_length(lengths: Sequence[int], rows: int) -> list[tuple[int, list[int]]]:
    """Each length of a segment, with the first rows of all segments of that length."""
    if sum(lengths) != rows:
        raise RuntimeError(f"the tower ran on {rows} rows; its segments have {sum(lengths)}")
    starts: dict[int, list[int]] = {}
    start = 0
    for length in lengths:
        starts.setdefault(length, []).append(start)
        start += length
    return list(starts.items())


def _rows(starts: Sequence[int], width: int, device: torch.device) -> slice | Tensor:
    """Rows of runs of equal width: a slice where one covers them, as a slice copies nothing."""
    steps = {after - before for before, after in itertools.pairwise(starts)}
    if steps <= {width}:
        return slice(starts[0], starts[-1] + width)
    if width == 1 and len(steps) == 1:  # the [CLS] rows of tiles of equal size
        return slice(starts[0], starts[-1] + 1, steps.pop())
    rows = torch.tensor(starts)[:, None] + torch.arange(width)
    return to_device(rows.flatten(), device)


def _groups(starts: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """A few segments at a time."""
    for index in range(0, len(starts), size):
        yield starts[index : index + size]
