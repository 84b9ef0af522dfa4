"""Time spent in a part of the forward pass, on the device's own clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up time without waiting for the device."""

    def __init__(self) -> None:
        self.total = 0.0
        self.spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Time the block.

        Args:
            device: Where its work runs.
        """
        if device.type != "cuda":
            start = time.perf_counter()
            yield
            self.total += time.perf_counter() - start
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        stream = torch.cuda.current_stream(device)
        first.record(stream)
        yield
        last.record(stream)
        self.spans.append((first, last))

    def seconds(self) -> float:
        """Time so far; waits for the device."""
        for first, last in self.spans:
            last.synchronize()
            self.total += first.elapsed_time(last) / 1000
        self.spans.clear()
        return self.total
