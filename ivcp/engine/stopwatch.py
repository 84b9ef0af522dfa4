"""Time spent in a section of the forward pass, measured by the device's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up times; measuring does not wait for the device."""

    def __init__(self) -> None:
        self.total = 0.0
        self.spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """Time the block.

        Args:
            device: The device that runs the work of the block.
        """
        if device.type != "cuda":
            start = time.perf_counter()
            yield
            self.total += time.perf_counter() - start
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        stream = torch.cuda.current_stream(device)
        begin.record(stream)
        yield
        end.record(stream)
        self.spans.append((begin, end))

    def seconds(self) -> float:
        """Time so far; waits for the device."""
        for begin, end in self.spans:
            end.synchronize()
            self.total += begin.elapsed_time(end) / 1000
        self.spans.clear()
        return self.total
