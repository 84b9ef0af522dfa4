"""Files that are there whole or not at all, also on a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ivcp.core.errors import UserError


@contextlib.contextmanager
def full_disk_explained(path: Path) -> Iterator[None]:
    """Turn "no space left" inside the block into one sentence.

    Raises:
        UserError: The disk or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"The disk is full: {path} could not be written. What was written before is kept; "
            f"free some space or choose another folder with hydra.run.dir=FOLDER."
        ) from error


class LineFile:
    """A file of whole lines: each call writes through to the operating system or leaves no trace.

    Args:
        path: Replaced if it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        with full_disk_explained(path):
            self.file = path.open("wb", buffering=0)

    def append(self, lines: Iterable[str]) -> None:
        """Write lines; after a failure the file ends with the last whole line before them.

        Raises:
            UserError: The disk is full.
        """
        data = memoryview("".join(lines).encode())
        with full_disk_explained(self.path):
            try:
                written = 0
                while written < len(data):
                    written += self.file.write(data[written:]) or 0
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self.file.fileno(), self.size)
                raise
        self.size += len(data)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        UserError: The disk is full.
    """
    draft = path.with_name(f".{path.name}.part")
    with full_disk_explained(path):
        try:
            with draft.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
