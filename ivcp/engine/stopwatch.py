"""Time spent in a part of the forward pass, on the device's own clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up time without waiting for the device.

    Args:
        device: Where the work runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.total = 0.0
        self.spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time the block."""
        if not self.cuda:
            start = time.perf_counter()
            yield
            self.total += time.perf_counter() - start
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        first.record()
        yield
        last.record()
        self.spans.append((first, last))

    def seconds(self) -> float:
        """Time so far; waits for the device."""
        for first, last in self.spans:
            last.synchronize()
            self.total += first.elapsed_time(last) / 1000
        self.spans.clear()
        return self.total
