"""When a request may start, and how long to wait before the same one is tried again."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

LONGEST_WAIT = 60.0
"""Seconds; also caps what a server asks for, which may be hours."""


class Pace:
    """Spaces requests evenly, over all threads.

    Args:
        requests_per_minute: At most so many; None for no limit.
        clock: Seconds since some point, never going back.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        clock: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        self.gap = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self.clock, self.sleep = clock, sleep
        self._lock = threading.Lock()
        self._free = clock()

    def turn(self) -> None:
        """Wait until one more request may start."""
        if not self.gap:
            return
        with self._lock:
            now = self.clock()
            start = max(now, self._free)
            self._free = start + self.gap
        if start > now:
            self.sleep(start - now)


def back_off(attempt: int, retry_after: float | None, draw: random.Random) -> float:
    """Seconds before the next attempt: 1, 2, 4, ... less up to a half by chance, or what was asked.

    Args:
        attempt: Number of attempts that failed before this one, from 0.
        retry_after: Seconds that the server asks for.
        draw: Source of chance, which keeps threads from returning all at once.
    """
    wait = min(2.0**attempt, LONGEST_WAIT) * draw.uniform(0.5, 1.0)
    return max(wait, min(retry_after or 0.0, LONGEST_WAIT))
