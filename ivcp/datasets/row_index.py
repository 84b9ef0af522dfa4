"""What one pass over a tab-separated file finds, kept beside the file."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydantic import TypeAdapter, ValidationError
from rich import progress
from rich.console import Console

from ivcp.core.errors import UserError
from ivcp.datasets.cells import SHORT, image_sizes

FORMAT = 2
"""Of the index; one of another format is made again."""

CELL_LIMIT = 1 << 27
"""Most characters of a cell, about 100 MB of image. Without a limit, a quote that is never closed
would bring the rest of the file into memory."""

LARGE = 100_000_000
"""Bytes from which a scan shows its progress."""


class RowSpan(NamedTuple):
    """Where a row is, and the little that must be known of every row.

    Attributes:
        start: Its first byte.
        length: Its bytes.
        name: Its cell `index`; empty if there is none.
        image: Its cell `image`, empty if there is none; None if longer than `SHORT`.
        complete: Whether it has the header's cells.
        sizes: Width and height of each image in its cell `image`; empty if unknown.
    """

    start: int
    length: int
    name: str
    image: str | None
    complete: bool
    sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Index:
    """What one pass over a file finds; kept beside the file as JSON.

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
    rows: list[RowSpan]
    format: int = FORMAT

    def describes(self, stat: os.stat_result) -> bool:
        """Whether it is of this format and of the file of that status."""
        return (self.size, self.mtime_ns, self.format) == (stat.st_size, stat.st_mtime_ns, FORMAT)

    def fits(self) -> bool:
        """Whether all rows lie in the file, and all sizes are those of images."""
        return all(
            row.start >= 0 < row.length
            and row.start + row.length <= self.size
            and all(width > 0 < height for width, height in row.sizes)
            for row in self.rows
        )


class _Lines:
    """The lines of a file as text.

    Attributes:
        position: Bytes read so far.
        count: Lines read so far.
        md5: Of these bytes.
        legible: Whether all lines since it was set were UTF-8.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.position, self.count, self.legible = 0, 0, True
        self.md5 = hashlib.md5(usedforsecurity=False)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.file)
        encoding = "utf-8" if self.position else "utf-8-sig"
        self.position += len(line)
        self.count += 1
        self.md5.update(line)
        try:
            return line.decode(encoding)
        except UnicodeDecodeError:
            self.legible = False
            return line.decode(errors="replace")


def scan(path: Path) -> Index:
    """The index of a file, from one pass over it.

    Raises:
        OSError: It cannot be read.
        UserError: It has no header, or one that no table can have.
    """
    rows: list[RowSpan] = []
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
        parsed = parser(lines)
        columns = _header(parsed, lines, path)
        while True:
            start, first_line, lines.legible = lines.position, lines.count, True
            try:
                cells = next(parsed)
            except StopIteration:
                break
            except csv.Error:
                cells, lines.legible = [""], False
            if not cells:  # an empty line, which pandas skips too
                continue
            complete = lines.legible and len(cells) == len(columns)
            if lines.position == stat.st_size and lines.count - first_line > 1:
                _check_closed(path, start, len(rows), lines.count - first_line)
            row = dict(zip(columns, cells, strict=True)) if complete else {}
            image = row.get("image", "")
            short = image if len(image) <= SHORT else None
            sizes = image_sizes(image) if short is None else ()
            length, name = lines.position - start, row.get("index", "")
            rows.append(RowSpan(start, length, name, short, complete, sizes))
    return Index(
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        md5=lines.md5.hexdigest(),
        columns=columns,
        rows=rows,
    )


def _check_closed(path: Path, start: int, number: int, lines: int) -> None:
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
                "lines behind it along; repair it, or get the file again."
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
        index = TypeAdapter(Index).validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError):  # absent, torn or foreign: it is made again
        return None
    return index if index.describes(stat) and index.fits() else None


def keep(index: Index, path: Path) -> str:
    """Write the index in one step; a note if that cannot be done."""
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        draft.write_bytes(TypeAdapter(Index).dump_json(index))
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        return f"Each start reads all of the file, as {path} cannot be written ({error.strerror})."
    return ""
