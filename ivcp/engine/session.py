"""What a session knows of the last prefill."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.layout import PromptLayout
from ivcp.engine.prefill import Prefill
from ivcp.engine.prompt import digest


@dataclass
class Results:
    """What one prefill left; tensors are fetched when asked for."""

    layouts: list[PromptLayout] = field(default_factory=list)
    layer_tokens: list[list[int]] = field(default_factory=list)
    cache_lengths: list[list[int]] = field(default_factory=list)
    cache_bytes: int = 0
    read: Callable[[], list[tuple[Tensor, list[str]]]] = list
    read_remaining: Callable[[], list[Tensor]] = list
    clock: Callable[[], float] = float
    kept: list[tuple[Tensor, list[str]]] | None = None


class Session:
    """What happened in the last prefill; `sample_ids` may be set before each batch.

    A thread that has run a prefill itself sees its own, others see the last one of all.

    Attributes:
        sample_ids: Ids of the rows of the next batch; None uses a digest of each prompt.
        questions: The user's question of each row of the next batch, for methods that read it.
        layouts: Layout of each sample's prompt.
        kept: For each sample, ascending indices into its own prompt (padding not counted; the new
            text alone, where it follows on a cache) of the visual tokens that survived.
        reasons: For each sample, why, a word for each of its kept tokens.
        remaining: For each sample, prompt indices of all tokens that are left behind the last
            stage, in the order of the rows of the model's output (rows are padded on the left).
        layer_tokens: [layer][sample] tokens that each layer processed.
        cache_lengths: [layer][sample] tokens in the KV cache after prefill, padding not counted;
            empty without a cache.
        cache_bytes: Bytes of the KV cache after prefill, whole batch.
        overhead_seconds: Time spent choosing tokens and cutting, whole batch.
    """

    def __init__(self) -> None:
        self.sample_ids: list[str] | None = None
        self.questions: list[str] | None = None
        self._close: Callable[[], None] = lambda: None
        self._own = threading.local()
        self._last = Results()

    def on_close(self, close: Callable[[], None]) -> None:
        """Say what ends the session."""
        self._close = close

    def close(self) -> None:
        """Stop pruning; the results stay. A second time does nothing."""
        self._close()
        self._close = lambda: None

    @property
    def _results(self) -> Results:
        found: Results = getattr(self._own, "results", self._last)
        return found

    @property
    def layouts(self) -> list[PromptLayout]:
        return self._results.layouts

    @property
    def layer_tokens(self) -> list[list[int]]:
        return self._results.layer_tokens

    @property
    def cache_lengths(self) -> list[list[int]]:
        return self._results.cache_lengths

    @property
    def cache_bytes(self) -> int:
        return self._results.cache_bytes

    @property
    def kept(self) -> list[Tensor]:
        return [kept for kept, _ in self._kept()]

    @property
    def reasons(self) -> list[list[str]]:
        return [reasons for _, reasons in self._kept()]

    @property
    def remaining(self) -> list[Tensor]:
        return self._results.read_remaining()

    @property
    def overhead_seconds(self) -> float:
        return self._results.clock()

    def _kept(self) -> list[tuple[Tensor, list[str]]]:
        results = self._results
        if results.kept is None:
            results.kept = results.read()
        return results.kept

    def record(self, prefill: Prefill) -> None:
        """Take over the results of a finished prefill."""
        rows, names = prefill.rows, prefill.reasons
        self._set(
            Results(
                layouts=[row.layout for row in rows],
                layer_tokens=prefill.lengths.layer_tokens,
                cache_lengths=prefill.cache_lengths(),
                cache_bytes=prefill.cache_bytes(),
                read=lambda: [row.kept(names) for row in rows],
                read_remaining=lambda: [row.origin.cpu() for row in rows],
                clock=prefill.clock.seconds,
            )
        )

    def clear(self, layouts: list[PromptLayout]) -> None:
        """A prompt without visual tokens has begun."""
        none: list[tuple[Tensor, list[str]]] = [
            (torch.empty(0, dtype=torch.long), []) for _ in layouts
        ]
        whole = [torch.arange(layout.length) for layout in layouts]
        self._set(Results(layouts=layouts, kept=none, read_remaining=lambda: whole))

    def _set(self, results: Results) -> None:
        self._own.results = self._last = results

    def id_of(self, row: int, rows: int, tokens: Tensor) -> str:
        """Id of a batch row; rows that `generate` repeats (beams) share their sample's id."""
        if self.sample_ids is None:
            return digest(tokens)
        return _of_row(self.sample_ids, "sample_ids", row, rows)

    def questions_of(self, rows: int) -> Sequence[str] | None:
        """The question of each of so many rows."""
        if self.questions is None:
            return None
        return [_of_row(self.questions, "questions", row, rows) for row in range(rows)]


def _of_row(given: list[str], name: str, row: int, rows: int) -> str:
    if isinstance(given, str):
        raise UserError(f"{name} must be a list, one text a sample; got the text {given!r}.")
    if not given or rows % len(given):
        raise UserError(
            f"{name} must name each sample of the batch; got {len(given)} {name.split('_')[-1]} "
            f"for {rows} rows."
        )
    return given[row * len(given) // rows]
