"""Questions about clips, in folders as the Hugging Face hub has them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ivcp.core.errors import UserError
from ivcp.core.fields import check_fields
from ivcp.core.types import IMAGE_ID, BrokenSample, Sample, Task
from ivcp.core.video import Video
from ivcp.datasets.annotation_tables import read_table
from ivcp.datasets.annotation_values import fields, read_id
from ivcp.datasets.data_root import data_root, image_file, user_path
from ivcp.datasets.tsv import check_sample

SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi", ".mov")
"""Of clips whose annotations name them without one, the usual one first."""

Row = tuple[str, Any]
"""Where a row of annotations is, for messages, and the row."""


@dataclass(frozen=True, kw_only=True)
class VideoBenchmark(ABC):
    """Base of the video benchmarks; nothing is read before the first `len` or index.

    Clips are not opened: a sample has their paths, and the model family reads as many frames as it
    is set to. A row of another kind than published, or whose clip is absent, is a `BrokenSample`.

    Attributes:
        task: The kind of answer.
        benchmark: Published name, by which model families choose a wording.
        hub: Id of the dataset on the Hugging Face hub; the folder has the name behind the slash.
        columns: What every row must have.
        tables: Where the table of questions may stand in the folder of the set.
        clip_column: Column of the path of a row's clip in the folder of clips.
        key: Column of the id of a question; "" if the row's number is its id.
        label_columns: Columns by which results are broken down; notes count absent clips by the
            first.
        subfolders: Folders into which the published archives of clips are usually unpacked.
        has_frame_folders: Whether a clip may be a folder of images.
        has_videos: True, for models that take images only.
        root: Folder of benchmark files; None takes the variable `LMUData`, else `~/LMUData`.
        folder: Folder of the set as it is published; None takes the usual one in the root.
        videos: Folder of the clips; None looks in the usual ones in the folder of the set.
        rows: Published number of questions, which `notes` compares; None for unknown.
        images_anywhere: Whether paths of clips may leave these folders.
    """

    benchmark: ClassVar[str]
    hub: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    tables: ClassVar[tuple[str, ...]] = ()
    clip_column: ClassVar[str] = "video"
    key: ClassVar[str] = ""
    label_columns: ClassVar[tuple[str, ...]] = ()
    subfolders: ClassVar[tuple[str, ...]] = ("video", "videos", "data", "")
    has_frame_folders: ClassVar[bool] = False
    has_videos: ClassVar[bool] = True

    root: str | None = None
    folder: str | None = None
    videos: str | None = None
    rows: int | None = None
    images_anywhere: bool = False

    def __post_init__(self) -> None:
        """Check types.

        Raises:
            UserError: A field has another type.
        """
        check_fields(self, "dataset.")

    @property
    def task(self) -> Task:
        """The kind of answer."""
        return "multiple_choice"

    def read_rows(self, home: Path) -> Iterable[Row]:
        """All questions, each with where it stands.

        Args:
            home: Folder of the set.

        Raises:
            UserError: A file cannot be had or read.
        """
        return self.read_file(self.file(*self.tables))

    def read_file(self, path: Path, task: str = "", **added: str) -> Iterable[Row]:
        """The rows of a table, each with where it stands.

        Args:
            path: The file.
            task: The task that the file is about, which rows get as `task_type`, with an `id`.
            **added: More that rows get.
        """
        for number, row in enumerate(read_table(path, self.origin)):
            if task and isinstance(row, Mapping):
                row = {**row, "task_type": task, "id": f"{task}-{number}", **added}
            yield f"row {number} of {path}", row

    def clip_name(self, row: Mapping[str, Any]) -> str:
        """Path of a row's clip in the folder of clips; its suffix may be left out."""
        return str(row[self.clip_column])

    @abstractmethod
    def add_question(self, sample: Sample, row: Mapping[str, Any], where: str) -> Sample:
        """The sample with its question, options, answer and prompt.

        Raises:
            UserError: The row has other values than published.
        """

    @property
    def home(self) -> Path:
        """Folder of the set.

        Raises:
            UserError: It is absent.
        """
        name = self.hub.rpartition("/")[2]
        home = user_path(self.folder) if self.folder else data_root(self.root) / name
        if not home.is_dir():
            raise UserError(
                f"Expected the folder {home}; get it by `{self.origin}` and unpack its archives "
                "there, or point data.root at the folder of benchmark files, or dataset.folder at "
                "that of the set."
            )
        return home

    @property
    def origin(self) -> str:
        """A command that fetches the set."""
        name = self.hub.rpartition("/")[2]
        return f"hf download --repo-type dataset {self.hub} --local-dir {name}"

    def file(self, *names: str) -> Path:
        """The first of some files in the folder of the set.

        Raises:
            UserError: None is there.
        """
        paths = [self.home / name for name in names]
        for path in paths:
            if path.is_file():
                return path
        listed = " or ".join(map(str, paths))
        raise UserError(f"Expected the file {listed}; get it by `{self.origin}`.")

    @cached_property
    def clip_folders(self) -> tuple[Path, ...]:
        """Where clips may lie.

        Raises:
            UserError: The folder that the user named is none.
        """
        if self.videos is None:
            return tuple(self.home / name for name in self.subfolders)
        folder = user_path(self.videos)
        if not folder.is_dir():
            raise UserError(f"dataset.videos must be a folder with clips; {folder} is none.")
        return (folder,)

    def clip_path(self, name: str) -> Path:
        """Path of a clip.

        Raises:
            UserError: It is absent, or lies outside of the folders.
        """
        if not name or name.endswith("/"):
            raise UserError("Expected the name of a clip; got an empty one.")
        named = Path(name).suffix in SUFFIXES
        for variant in (name,) if named else (*(name + suffix for suffix in SUFFIXES), name):
            path = image_file(variant, self.clip_folders, self.images_anywhere)
            if path.is_file() or (self.has_frame_folders and path.is_dir()):
                return path
        folders = " or ".join(dict.fromkeys(str(path) for path in self.clip_folders))
        raise UserError(f"Expected the clip {name} in {folders}; it is absent.")

    def find_clip(self, row: Mapping[str, Any]) -> Path:
        """Path of a row's clip.

        Raises:
            UserError: It is absent.
        """
        return self.clip_path(self.clip_name(row))

    def video(self, row: Mapping[str, Any]) -> Video:
        """The clip of a row, or the part that the row is about.

        Raises:
            UserError: It is absent, or there is no such part.
        """
        return Video(path=self.find_clip(row))

    @cached_property
    def _rows(self) -> list[Row]:
        """All questions.

        Raises:
            UserError: There are none.
        """
        rows = list(self.read_rows(self.home))
        if not rows:
            raise UserError(f"{self.home} holds no question of {self.benchmark}.")
        return rows

    @cached_property
    def _ids(self) -> list[str]:
        """Ids of all questions; the number of a row that has none.

        Raises:
            UserError: Two are equal.
        """
        ids = []
        for number, (where, row) in enumerate(self._rows):
            try:
                ids.append(read_id(row[self.key], f"the {self.key} of {where}"))
            except (UserError, KeyError, TypeError):
                ids.append(str(number))
        if twice := [name for name, count in Counter(ids).items() if count > 1]:
            raise UserError(f"{self.home} has the id {twice[0]} twice; get its files again.")
        return ids

    @cached_property
    def _absent(self) -> Counter[str]:
        """How many questions have no clip, by the first label.

        Raises:
            UserError: No question has one.
        """
        absent, present = Counter[str](), dict[str, bool]()
        for where, row in self._rows:
            try:
                fields(row, self.columns, where)
                name = self.clip_name(row)
                if name not in present:
                    present[name] = self._has_clip(row)
                there = present[name]
            except (UserError, OSError, TypeError, ValueError):  # counted when it is read
                there = False
            if not there:
                absent[next(iter(self._labels(row).values()), "")] += 1
        if absent.total() == len(self._rows):
            folders = " or ".join(dict.fromkeys(str(path) for path in self.clip_folders))
            raise UserError(
                f"None of the clips of {len(self._rows):,} questions is in {folders}; unpack the "
                f"archives of {self.hub} there, or point dataset.videos at the folder that has "
                "them."
            )
        return absent

    def _has_clip(self, row: Mapping[str, Any]) -> bool:
        try:
            self.find_clip(row)
        except UserError:
            return False
        return True

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results must know: a partial set is named so."""
        notes = []
        if self.rows not in (None, len(self)):
            notes.append(
                f"{self.benchmark} has {len(self):,} questions here, {self.rows:,} are published."
            )
        if count := self._absent.total():
            parts = [f"{name} {number:,}" for name, number in self._absent.most_common() if name]
            of_labels = f" ({', '.join(parts)})" if parts else ""
            notes.append(
                f"The set is partial: {count:,} of {len(self):,} questions of {self.benchmark} "
                f"have no clip here and count as wrong{of_labels}."
            )
        return tuple(notes)

    @cached_property
    def identity(self) -> str:
        """A sum over all rows; clips are not read for it."""
        digest = hashlib.sha256()
        for where_and_row in self._rows:
            digest.update(repr(where_and_row[1]).encode(errors="surrogatepass"))
        return digest.hexdigest()

    def sample_id(self, index: int) -> str:
        """The id of a question."""
        return self._ids[index]

    def __len__(self) -> int:
        _ = self._absent  # a set without any clip is refused before the model loads
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        """One question; its clip is not opened.

        Raises:
            IndexError: There is no such question.
            BrokenSample: Its row has other values than published, or its clip is absent.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index from 0 to {len(self) - 1}; got {index}.")
        where, row = self._rows[index]
        sample = Sample(
            id=self._ids[index],
            task=self.task,
            images=(),
            question="",
            answer="",
            benchmark=self.benchmark,
            labels=self._labels(row),
        )
        try:
            fields(row, self.columns, where)
            sample = replace(sample, labels={**sample.labels, IMAGE_ID: self.clip_name(row)})
            question = self.add_question(sample, row, where)
            check_sample(question, where)
            sample = question  # only now, because a record of a failure must be well-formed
            return replace(sample, videos=(self.video(row),))
        except Exception as error:  # whatever is wrong with one sample must not end a run
            raise BrokenSample(sample) from error

    def _labels(self, row: Any) -> dict[str, str]:
        """Labels of a row, as far as it has them."""
        if not isinstance(row, Mapping):
            return {}
        return {
            name: str(row[name])
            for name in self.label_columns
            if isinstance(row.get(name), str | int) and row[name] != ""
        }
