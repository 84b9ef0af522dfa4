"""General question sets in VLMEvalKit's format: one tab-separated file, images inside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import get_args

from ivcp.core.errors import UserError
from ivcp.core.fields import check_fields
from ivcp.core.pixels import decode
from ivcp.core.types import IMAGE_ID, Answer, BrokenSample, Sample, Task
from ivcp.datasets.annotation_values import caption_problem
from ivcp.datasets.cells import SHORT, decode_base64, image_id, read_list
from ivcp.datasets.data_root import data_root, first_file, image_file, user_path
from ivcp.datasets.download import fetch
from ivcp.datasets.tsv_rows import RowFile

LABELS = ("category", "l2-category", "split", "source", "image_path")
"""Columns that become labels of a sample, beside "index" and `IMAGE_ID`."""

OTHER = "Other Answers"
"""Second option of an open question among multiple-choice ones, in VLMEvalKit's words."""


@dataclass(frozen=True, kw_only=True)
class TsvBenchmark:
    """The questions of one file; nothing is read before the first `len` or index.

    A row is `index`, `question`, `answer` and the images: in `image` (base64, a list of such, or in
    at most 64 characters the index of the row whose images are meant) or else in `image_path` (a
    path or a list of such). Where there is a column `image`, rows with neither are left out, as
    VLMEvalKit does. Options are in the columns A, B, C, ...

    Answers must be the capital letter of an option, or "Yes" or "No" (in any case), or a text, or a
    list of texts. A row that is no question is a `BrokenSample`.

    Attributes:
        name: Published name of the benchmark, which is also that of its file.
        task: "yes_no", "multiple_choice" or "open_ended".
        url: Where to get the file; None for a file of one's own.
        md5: Accepted sums of the file in hexadecimal digits; None takes any file.
        rows: Published number of questions, which `notes` compares; None for unknown.
        root: Folder of benchmark files; None takes the variable `LMUData`, else `~/LMUData`.
        download: Whether to fetch a file that is absent.
        verify: Whether a file of another sum is refused.
        images_anywhere: Whether an image path may leave the folder of the file and
            `images/<name>` in the root.
        own_words: Whether the column `prompt` has the whole wording of each question.
        open_options: Whether a question without options is one between its answer and "Other
            Answers", as VLMEvalKit has it for MMMU; it gets the label "open".
        file: A file of the user's own, instead of that in the root.
    """

    name: str
    task: Task
    url: str | None = None
    md5: str | tuple[str, ...] | None = None
    rows: int | None = None
    root: str | None = None
    download: bool = False
    verify: bool = True
    images_anywhere: bool = False
    own_words: bool = False
    open_options: bool = False
    file: str | None = None

    def __post_init__(self) -> None:
        """Check types and the task.

        Raises:
            UserError: A field has another type, or the task is none that such a file can have.
        """
        tasks = [task for task in get_args(Task) if not task.endswith("grounding")]
        if self.task not in tasks:
            raise UserError(f"dataset.task must be one of {', '.join(tasks)}; got {self.task}.")
        check_fields(self, "dataset.")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know about the file."""
        total, evaluated = len(self._file), len(self)
        notes = list(self._file.notes)
        if evaluated < total:
            notes.append(f"{total - evaluated:,} of {total:,} rows have no image and are left out.")
        if self.rows not in (None, total, evaluated):
            notes.append(f"The file has {total:,} rows, {self.rows:,} are published.")
        return tuple(notes)

    @property
    def identity(self) -> str:
        """The file's md5 sum."""
        return self._file.identity

    def sizes(self, index: int) -> tuple[tuple[int, int], ...]:
        """Width and height of each image in the file; empty if they are elsewhere."""
        return self._file.sizes(self._numbers[index])

    def sample_id(self, index: int) -> str:
        """The id of a question, without reading its row."""
        return self._file.name(self._numbers[index])

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        """One question with its images.

        Raises:
            IndexError: There is no such question.
            BrokenSample: Its question, answer or images cannot be used.
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
            cell = self._image_cell(row, where)
            sample = replace(sample, labels={**sample.labels, IMAGE_ID: image_id(cell)})
            check_sample(sample, where)
            encoded = [self._encoded(text) for text in read_list(cell) or (cell,)]
            return replace(sample, images=tuple(map(decode, encoded)))
        except Exception as error:  # whatever is wrong with one sample must not end a run
            raise BrokenSample(sample) from error

    def _question(self, row: dict[str, str]) -> Sample:
        """The sample without its images."""
        labels = {name: row[name] for name in ("index", *LABELS) if row.get(name)}
        text = row["answer"].strip()
        answer: Answer = text
        options: tuple[str, ...] = ()
        if self.task == "yes_no":
            answer = text.capitalize()
        elif self.task == "open_ended":
            texts = read_list(row["answer"])
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

    def _image_cell(self, row: dict[str, str], where: str) -> str:
        """The cell that holds or names the images of a row, perhaps another row's.

        Raises:
            UserError: There is none.
        """
        cell = row.get("image", "")
        if cell and len(cell) <= SHORT and read_list(cell) is None:
            cell = self._file[self._file.find(cell)]["image"]
            if len(cell) <= SHORT:
                raise UserError(f"The row to which the image of {where} refers has none itself.")
        cell = cell or row.get("image_path", "")
        if cell.strip("[] ") == "":
            raise UserError(f"Expected an image or a path in {where}; both are empty.")
        return cell

    def _encoded(self, text: str) -> bytes | Path:
        """The image file that a text holds, or its path.

        Raises:
            OSError: It is no base64.
            UserError: The path leaves the folders of the images.
        """
        if "." in text:  # no digit of base64, and every name of an image has one
            folders = (self._file.path.parent, data_root(self.root) / "images" / self.name)
            return image_file(text, folders, self.images_anywhere)
        return decode_base64(text)

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
        return (self.md5,) if isinstance(self.md5, str) else self.md5 or ()

    def _path(self) -> Path:
        """Where the file lies, fetched if it must and may be."""
        if self.file is not None:
            path = user_path(self.file)
            if not path.is_file():
                raise UserError(f"dataset.file must be a file; {path} is none.")
            return path
        root = data_root(self.root)
        path = root / f"{self.name}.tsv"
        if found := first_file((path, root / PurePosixPath(self.url or path.name).name)):
            return found
        if self.url is None:
            raise UserError(
                f"Expected the file {path}; put it there, or name it with dataset.file=FILE "
                "(dataset.url is null, so it cannot be fetched)."
            )
        if not self.download:
            raise UserError(
                f"Expected the file {path}; let data.download=true fetch it, or get it from "
                f"{self.url} and put it there."
            )
        fetch(self.url, path, self._sums)
        return path

    @cached_property
    def _numbers(self) -> tuple[int, ...]:
        """Of the rows that are evaluated."""
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


def check_sample(sample: Sample, where: str) -> None:
    """Check that a sample has a question, and an answer that can be right.

    Raises:
        UserError: It has not.
    """
    if problem := caption_problem(sample.question, f"the column question of {where}"):
        raise UserError(problem)
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
