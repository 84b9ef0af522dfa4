"""What one pass over a tab-separated file tells, kept beside the file."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rich import progress
from rich.console import Console

from ivcp.core.errors import UserError
from ivcp.datasets.cells import sizes_of

FORMAT = 2
"""Of the index; one of another format is made again."""

CELL_LIMIT = 1 << 27
"""Most characters of a cell, about 100 MB of image. Without a limit, a quote that is never closed
would bring the rest of the file into memory."""

REFERENCE = 64
"""Most characters of an `image` cell that is another row's index instead of an image."""

LARGE = 100_000_000
"""Bytes from which a scan shows its progress."""


class Place(NamedTuple):
    """Where a row is, and the little that must be known of every row.

    Attributes:
        start: Its first byte.
        length: Its bytes.
        name: Its cell `index`; empty if there is none.
        image: Its cell `image`, empty if there is none; None if longer than `REFERENCE`.
        whole: Whether it has the header's cells.
        sizes: Width and height of each image in its cell `image`; empty if unknown.
    """

    start: int
    length: int
    name: str
    image: str | None
    whole: bool
    sizes: Sequence[Sequence[int]] = ()


@dataclass(frozen=True, kw_only=True)
class Index:
    """What one pass over a file tells; kept beside the file as JSON.

    Attributes:
        size: Of the file in bytes.
        mtime_ns: When the file was changed last.
        md5: Of the file.
        columns: Names in the header.
        rows: In the order of the file.
        format: `FORMAT` of the program that wrote it.
    """

    size: int
    mtime_ns: int
    md5: str
    columns: list[str]
    rows: list[Place]
    format: int = FORMAT

    def describes(self, stat: os.stat_result) -> bool:
        """Whether it is of this format and of the file of that status."""
        told = (self.size, self.mtime_ns, self.format)
        return told == (stat.st_size, stat.st_mtime_ns, FORMAT)


class _Lines:
    """The lines of a file as text.

    Attributes:
        position: Bytes read so far.
        numbers: Lines read so far.
        md5: Of these bytes.
        legible: Whether all lines since it was set were UTF-8.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.position, self.numbers, self.legible = 0, 0, True
        self.md5 = hashlib.md5(usedforsecurity=False)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.file)
        first = self.position == 0
        self.position += len(line)
        self.numbers += 1
        self.md5.update(line)
        try:
            return line.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError:
            self.legible = False
            return line.decode(errors="replace")


def scan(path: Path) -> Index:
    """The index of a file, from one pass over it.

    Raises:
        OSError: It cannot be read.
        UserError: It has no header, or one that no table can have.
    """
    rows: list[Place] = []
    stat, console = path.stat(), Console(stderr=True)
    with progress.open(
        path,
        "rb",
        description=f"reading {path.name} for the first time",
        console=console,
        transient=True,
        disable=stat.st_size < LARGE or not console.is_terminal,
    ) as file:
        lines = _Lines(file)
        rows_of = parser(lines)
        columns = _header(rows_of, lines, path)
        while True:
            start, first, lines.legible = lines.position, lines.numbers, True
            try:
                cells = next(rows_of)
            except StopIteration:
                break
            except csv.Error:
                cells, lines.legible = [""], False
            if not cells:  # an empty line, which pandas skips too
                continue
            whole = lines.legible and len(cells) == len(columns)
            if lines.position == stat.st_size and lines.numbers - first > 1:
                _closed(path, start, len(rows), lines.numbers - first)
            named = dict(zip(columns, cells, strict=True)) if whole else {}
            image = named.get("image", "")
            short = image if len(image) <= REFERENCE else None
            sizes = sizes_of(image) if short is None else ()
            length, name = lines.position - start, named.get("index", "")
            rows.append(Place(start, length, name, short, whole, sizes))
    return Index(
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        md5=lines.md5.hexdigest(),
        columns=columns,
        rows=rows,
    )


def _closed(path: Path, start: int, number: int, lines: int) -> None:
    """Check that the last row, of several lines, ends before the file does.

    Raises:
        UserError: A quote in it is open to the end.
    """
    with path.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    try:
        list(csv.reader(text.splitlines(keepends=True), delimiter="\t", strict=True))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            raise UserError(
                f"A quote in row {number} of {path} is never closed and takes the {lines - 1} "
                "lines behind it along; mend it, or get the file again."
            ) from error


def _header(rows: Iterator[list[str]], lines: _Lines, path: Path) -> list[str]:
    """The names in the first line."""
    try:
        columns = next(rows, [])
    except csv.Error:
        columns = []
    if not columns or not lines.legible:
        raise UserError(
            f"Expected {path} to begin with tab-separated names of columns, but it does not; get "
            "the file again."
        )
    if len(set(columns)) < len(columns):
        raise UserError(f"Expected each column once in {path}; got {', '.join(columns)}.")
    return columns


def parser(lines: Iterable[str]) -> Iterator[list[str]]:
    """The rows in some lines."""
    csv.field_size_limit(CELL_LIMIT)  # of the process; the default refuses most images
    return csv.reader(lines, delimiter="\t")


def load(path: Path, stat: os.stat_result) -> Index | None:
    """The index that was kept; None if there is none of the file of that status."""
    try:
        told = json.loads(path.read_bytes())
        told["rows"] = [Place(*row) for row in told["rows"]]
        index = Index(**told)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return index if index.describes(stat) else None


def keep(index: Index, path: Path) -> str:
    """Write the index in one step; a note if that cannot be done."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_text(json.dumps(vars(index)))
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        return f"Each start reads all of the file, as {path} cannot be written ({error.strerror})."
    return ""
