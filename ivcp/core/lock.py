"""One process at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def alone(lock: Path, busy: Callable[[], object]) -> Iterator[None]:
    """Hold a lock file, which is removed in the end; a process that was killed holds none.

    Args:
        lock: The file.
        busy: Called if another process holds it. If it returns, that process is waited for.

    Raises:
        OSError: The file cannot be made.
    """
    holder = FileLock(lock)
    try:
        holder.acquire(timeout=0)
    except Timeout:
        busy()
        holder.acquire()
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        holder.release()
