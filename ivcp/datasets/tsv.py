"""General question sets in VLMEvalKit's format: one tab-separated file, photos inside."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import get_args

from PIL import Image

from ivcp.core.errors import UserError
from ivcp.core.types import Answer, BrokenSample, Sample, Task
from ivcp.datasets.cells import listed
from ivcp.datasets.download import fetch
from ivcp.datasets.pixels import decode
from ivcp.datasets.places import data_root
from ivcp.datasets.row_index import REFERENCE
from ivcp.datasets.rows import RowFile

LABELS = ("category", "l2-category", "split", "source", "image_path")
"""Columns that become labels of a sample, beside "index"."""

OTHER = "Other Answers"
"""Second option of an open question among multiple-choice ones, in VLMEvalKit's words."""


@dataclass(frozen=True, kw_only=True)
class TsvBenchmark:
    """The questions of one file; nothing is read before the first `len` or index.

    A row is `index`, `question`, `answer` and the photos: in `image` (base64, a list of such, or in
    at most 64 characters the index of the row whose photos are meant) or else in `image_path` (a
    path or a list of such). Where there is a column `image`, rows with neither are left out, as
    VLMEvalKit does. Options are in the columns A, B, C, ...

    Answers must be the capital letter of an option, or "Yes" or "No" (in any case), or a text, or a
    list of texts. A row that cannot be asked is a `BrokenSample`.

    Attributes:
        name: Published name of the set, which is also that of its file.
        task: "yes_no", "multiple_choice" or "open_ended".
        url: Where the file is to be had.
        md5: Accepted sums of the file in hexadecimal digits; None takes any file.
        rows: Published number of questions, which `notes` compares; None for unknown.
        root: Folder of benchmark files; None takes the variable `LMUData`, else `~/LMUData`.
        download: Whether to fetch a file that is absent.
        verify: Whether a file of another sum is refused.
        own_words: Whether the column `prompt` has the whole wording of each question.
        open_options: Whether a question without options is one between its answer and "Other
            Answers", as VLMEvalKit has it for MMMU; it gets the label "open".
        file: A file of the user's own, instead of that in the root.
    """

    name: str
    task: Task
    url: str
    md5: str | Sequence[str] | None = None
    rows: int | None = None
    root: str | None = None
    download: bool = False
    verify: bool = True
    own_words: bool = False
    open_options: bool = False
    file: str | None = None

    def __post_init__(self) -> None:
        """Check the task.

        Raises:
            UserError: It is none that such a file can have.
        """
        known = [task for task in get_args(Task) if task != "grounding"]
        if self.task not in known:
            raise UserError(f"dataset.task must be one of {', '.join(known)}; got {self.task}.")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know about the file."""
        total, asked = len(self._file), len(self)
        told = list(self._file.notes)
        if asked < total:
            told.append(f"{total - asked:,} of {total:,} rows have no image and are left out.")
        if self.rows not in (None, total, asked):
            told.append(f"The file has {total:,} rows, {self.rows:,} are published.")
        return tuple(told)

    @property
    def identity(self) -> str:
        """The file's md5 sum."""
        return self._file.identity

    def sizes(self, index: int) -> tuple[tuple[int, int], ...]:
        """Width and height of each photo in the file; empty if they are elsewhere."""
        return self._file.sizes(self._numbers[index])

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        """One question with its images.

        Raises:
            IndexError: There is no such question.
            BrokenSample: It cannot be asked.
            UserError: Its row cannot be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index from 0 to {len(self) - 1}; got {index}.")
        number = self._numbers[index]
        row, where = self._file[number], f"row {number} of {self._file.path}"
        if not row["index"]:
            raise UserError(f"Expected an index in {where}; its cell is empty.")
        sample = self._question(row)
        try:
            check_answer(sample, where)
            return replace(sample, images=self._images(row, where))
        except (OSError, UserError) as error:
            raise BrokenSample(sample) from error

    def _question(self, row: dict[str, str]) -> Sample:
        """The sample without its images."""
        labels = {name: row[name] for name in ("index", *LABELS) if row.get(name)}
        told = row["answer"].strip()
        answer: Answer = told
        options: tuple[str, ...] = ()
        if self.task == "yes_no":
            answer = told.capitalize()
        elif self.task == "open_ended":
            texts = listed(row["answer"])
            answer = row["answer"] if texts is None else texts
        elif self.open_options and answer and not row.get("A"):
            options, answer, labels["open"] = (row["answer"], OTHER), "A", "yes"
        else:
            options = self._options(row)
        return Sample(
            id=row["index"],
            task=self.task,
            images=(),
            question=row["question"],
            answer=answer,
            options=options,
            hint=row.get("hint", ""),
            prompt=row["prompt"] if self.own_words else "",
            benchmark=self.name,
            labels=labels,
        )

    def _options(self, row: dict[str, str]) -> tuple[str, ...]:
        """Texts of the options up to the last that has one."""
        texts = [row[letter] for letter in takewhile(row.__contains__, ascii_uppercase)]
        while texts and not texts[-1]:
            texts.pop()
        return tuple(texts)

    def _images(self, row: dict[str, str], where: str) -> tuple[Image.Image, ...]:
        """The images of a row, in order.

        Raises:
            OSError: One cannot be had or decoded.
            UserError: There are none, or the cell refers to no row with images.
        """
        cell = row.get("image", "")
        if cell and len(cell) <= REFERENCE and listed(cell) is None:
            cell = self._file[self._file.find(cell)]["image"]
            if len(cell) <= REFERENCE:
                raise UserError(f"The row to which the image of {where} refers has none itself.")
        cell = cell or row.get("image_path", "")
        encoded = listed(cell) or ((cell,) if cell else ())
        if not encoded:
            raise UserError(f"Expected an image or a path in {where}; both are empty.")
        return tuple(decode(self._encoded(one)) for one in encoded)

    def _encoded(self, text: str) -> bytes | Path:
        """The image file that a text holds, or its path."""
        if "." in text:  # no digit of base64, and every name of an image has one
            folders = (self._file.path.parent, data_root(self.root) / "images" / self.name)
            places = [folder / text for folder in folders]
            return next((place for place in places if place.is_file()), places[-1])
        try:
            return base64.b64decode(text)
        except binascii.Error as error:
            raise OSError(f"no base64 ({error})") from error

    @cached_property
    def _file(self) -> RowFile:
        """The file, with the columns that the task needs.

        Raises:
            UserError: It cannot be had, or is not of this format.
        """
        choice = self.task == "multiple_choice" and not self.open_options
        needed = ["index", "question", "answer", *("AB" if choice else "")]
        needed += ["prompt"] if self.own_words else []
        file = RowFile(self._path(), required=needed, md5=self._sums)
        if not {"image", "image_path"} & set(file.columns):
            raise UserError(
                f"Expected a column image or image_path in {file.path}; it has "
                f"{', '.join(file.columns)}."
            )
        return file

    @property
    def _sums(self) -> tuple[str, ...]:
        if not self.verify:
            return ()
        return (self.md5,) if isinstance(self.md5, str) else tuple(self.md5 or ())

    def _path(self) -> Path:
        """Where the file lies, fetched if it must and may be."""
        if self.file is not None:
            own = Path(self.file).expanduser()
            if not own.is_file():
                raise UserError(f"dataset.file must be a file; {own} is none.")
            return own
        root = data_root(self.root)
        path = root / f"{self.name}.tsv"
        for place in (path, root / PurePosixPath(self.url).name):
            if place.is_file():
                return place
        if not self.download:
            raise UserError(
                f"Expected the file {path}; let data.download=true fetch it, or get it from "
                f"{self.url} and put it there."
            )
        fetch(self.url, path, self._sums)
        return path

    @cached_property
    def _numbers(self) -> tuple[int, ...]:
        """Of the rows that are asked."""
        rows = range(len(self._file))
        if "image" in self._file.columns:
            return tuple(number for number in rows if self._has_image(number))
        return tuple(rows)

    def _has_image(self, number: int) -> bool:
        """Whether a row has one; a row that cannot be read has, so that it counts as wrong."""
        if self._file.short_image(number) != "":
            return True
        try:
            return bool(self._file[number].get("image_path"))
        except UserError:
            return True


def check_answer(sample: Sample, where: str) -> None:
    """Check that a sample has an answer that can be given.

    Raises:
        UserError: It has not.
    """
    if sample.task == "yes_no":
        if sample.answer not in ("Yes", "No"):
            raise UserError(f"Expected Yes or No as answer in {where}; got {sample.answer!r}.")
    elif sample.task == "multiple_choice":
        letters = [
            letter for letter, text in zip(ascii_uppercase, sample.options, strict=False) if text
        ]
        if sample.answer not in letters:
            raise UserError(
                f"Expected one of the letters {', '.join(letters)} as answer in {where}; got "
                f"{sample.answer!r}."
            )
    elif not sample.answer:
        raise UserError(f"Expected an answer in {where}; its cell is empty.")
