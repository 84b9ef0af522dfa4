"""Random access to the rows of a tab-separated file of any size, one row in memory."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ivcp.core.errors import UserError
from ivcp.datasets.row_index import Index, keep, load, parser, scan


@dataclass(frozen=True)
class RowFile:
    """The rows of a tab-separated file as pandas writes it: a header, and quotes where needed.

    Every cell is the text that stands there: "None", "NA" and "nan" are texts, and a missing cell
    is empty. The first use reads the whole file once and leaves `<name>.index.json` beside it; from
    then on, a row is read when it is needed. It can be pickled and used by many processes.

    Attributes:
        path: The file.
        required: Columns that it must have.
        md5: Accepted sums in hexadecimal digits; empty accepts any file.
    """

    path: Path
    required: Sequence[str] = field(default=(), kw_only=True)
    md5: Sequence[str] = field(default=(), kw_only=True)

    def __len__(self) -> int:
        return len(self._index.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names in the header."""
        return tuple(self._index.columns)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know about the file, in sentences."""
        notes = [self._opened[1]] if self._opened[1] else []
        if broken := sum(not row.complete for row in self._index.rows):
            notes.append(
                f"{broken:,} of {len(self):,} rows of {self.path.name} do not have the header's "
                f"{len(self.columns)} cells and count as wrong."
            )
        return tuple(notes)

    def __getitem__(self, number: int) -> dict[str, str]:
        """The cells of a row, by column.

        Raises:
            IndexError: There is no such row.
            OSError: The file cannot be read any more.
            UserError: The row does not have the header's cells, or the file was changed meanwhile.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"Expected a row from 0 to {len(self) - 1}; got {number}.")
        with self.path.open("rb") as file:
            if not self._index.describes(os.fstat(file.fileno())):
                raise UserError(f"{self.path} was changed while in use; start again.")
            file.seek(self._index.rows[number].start)
            content = file.read(self._index.rows[number].length)
        where = f"row {number} of {self.path}"
        try:
            cells = next(parser([content.decode()]), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"Expected tab-separated cells in {where}; {error}.") from error
        if len(cells) != len(self.columns):
            raise UserError(
                f"Expected the header's {len(self.columns)} cells in {where}; got {len(cells)}."
            )
        return dict(zip(self.columns, cells, strict=True))

    def find(self, index: str) -> int:
        """Number of the row whose cell `index` is this.

        Raises:
            UserError: There is none.
        """
        if index not in self._numbers:
            raise UserError(f"{self.path} has no row of the index {index}.")
        return self._numbers[index]

    def short_image(self, number: int) -> str | None:
        """A row's cell `image`, empty if there is none; None if it is longer than `SHORT`."""
        return self._index.rows[number].image

    def sizes(self, number: int) -> tuple[tuple[int, int], ...]:
        """Width and height of each image of a row, or of the row to which it refers.

        Empty if they are unknown, as of images that are in files of their own.
        """
        row = self._index.rows[number]
        if row.image and row.image in self._numbers:
            row = self._index.rows[self._numbers[row.image]]
        return row.sizes

    def name(self, number: int) -> str:
        """The cell `index` of a row."""
        return self._index.rows[number].name

    @property
    def identity(self) -> str:
        """The file's md5 sum."""
        return self._index.md5

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {row.name: number for number, row in enumerate(self._index.rows) if row.name}

    @property
    def _index(self) -> Index:
        return self._opened[0]

    @cached_property
    def _opened(self) -> tuple[Index, str]:
        """The index, and a note if it could not be kept.

        Raises:
            UserError: The file cannot be read, is another one than expected, or is no such table.
        """
        index_path, note = self.path.with_name(f"{self.path.name}.index.json"), ""
        try:
            index = load(index_path, self.path.stat())
            if index is None:
                index = scan(self.path)
                note = keep(index, index_path)
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error}).") from error
        self._check(index)
        return index, note

    def _check(self, index: Index) -> None:
        """Refuse a file that is not the expected one."""
        if self.md5 and index.md5 not in self.md5:
            raise UserError(
                f"Expected the md5 sum {' or '.join(self.md5)} of {self.path}; got {index.md5}. "
                "Remove the file and fetch it again with data.download=true, or take it as it is "
                "with data.verify=false."
            )
        missing = [name for name in self.required if name not in index.columns]
        if missing:
            raise UserError(
                f"Expected the columns {', '.join(self.required)} in {self.path}; "
                f"{', '.join(missing)} missing among {', '.join(index.columns)}."
            )
        if not index.rows:
            raise UserError(f"{self.path} has a header but no rows; get the file again.")
        counts = Counter(row.name for row in index.rows if row.name)
        name, times = counts.most_common(1)[0] if counts else ("", 0)
        if times > 1:
            raise UserError(
                f"Expected each index once in {self.path}; {name} stands in {times} rows."
            )
