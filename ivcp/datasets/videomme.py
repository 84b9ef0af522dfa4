"""Video-MME: 2,700 questions about 900 clips of eleven seconds to one hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.datasets.annotation_values import fields
from ivcp.datasets.answer_options import LETTERED, read_options
from ivcp.datasets.data_root import image_file
from ivcp.datasets.subtitles import clip_seconds, has_subtitles, read_srt, uniform_lines
from ivcp.datasets.video_benchmark import VideoBenchmark

FRAMES = "\nThese are the frames of a video. "
SUBTITLES = "This video's subtitles are listed below:\n{}\n"
SELECT = (
    "Select the best answer to the following multiple-choice question based on the video. Respond "
    "with only the letter (A, B, C, or D) of the correct option.\n"
)
"""Source of the wording: `vlmeval/dataset/videomme.py` of VLMEvalKit."""


@dataclass(frozen=True, kw_only=True)
class VideoMME(VideoBenchmark):
    """Four options a question, three questions a clip; with or without subtitles.

    Differs from VLMEvalKit with subtitles: it takes those of the frames that the model sees, which
    a dataset cannot know. Here, they are those of `subtitle_frames` uniform moments, at the same
    indices as VLMEvalKit's frames; each subtitle stands once, and a clip without any is asked
    about without them.

    Attributes:
        root: As in `VideoBenchmark`, like the four fields below.
        folder: Usual name: Video-MME.
        videos: Folder of `<videoID>.mp4`.
        rows: Published number of questions; an early upload had 2,541.
        images_anywhere: Whether paths of clips may leave the folders.
        subtitles: Whether the prompt has the subtitles in `subtitle/<videoID>.srt`.
        subtitle_frames: Number of moments whose subtitles the prompt has, at least 1.
    """

    benchmark: ClassVar[str] = "Video-MME"
    hub: ClassVar[str] = "lmms-lab/Video-MME"
    columns: ClassVar[tuple[str, ...]] = ("videoID", "question", "options", "answer")
    tables: ClassVar[tuple[str, ...]] = (
        "videomme/test-00000-of-00001.parquet",
        "test-00000-of-00001.parquet",
    )
    clip_column: ClassVar[str] = "videoID"
    key: ClassVar[str] = "question_id"
    label_columns: ClassVar[tuple[str, ...]] = ("duration", "domain", "sub_category", "task_type")

    rows: int | None = 2700
    subtitles: bool = False
    subtitle_frames: int = 32

    def __post_init__(self) -> None:
        """Check types and the number of moments.

        Raises:
            UserError: A field has another type, or there are no moments.
        """
        super().__post_init__()
        if self.subtitle_frames < 1:
            raise UserError(
                f"dataset.subtitle_frames must be at least 1; got {self.subtitle_frames}."
            )

    def add_question(self, sample: Sample, row: Mapping[str, Any], where: str) -> Sample:
        question, options, answer = fields(row, ("question", "options", "answer"), where)
        lines = read_options(options, where)
        text = "\n".join([f"Question: {question}", *lines, "Answer: "])
        subtitles = self._subtitles(row) if self.subtitles else ""
        listed = SUBTITLES.format(subtitles) if subtitles else ""
        return replace(
            sample,
            question=question,
            options=tuple(LETTERED.sub("", line) for line in lines),
            answer=answer,
            prompt=f"{FRAMES}{listed}{SELECT}{text}",
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of `VideoBenchmark`, and how many clips have no subtitles."""
        if not self.subtitles:
            return super().notes
        names = {str(row.get("videoID")) for _, row in self._rows if isinstance(row, Mapping)}
        absent = sum(not self._has_subtitles(name) for name in names)
        if not absent:
            return super().notes
        return (
            *super().notes,
            f"{absent:,} of {len(names):,} clips have no subtitles in {self.home / 'subtitle'}; "
            "questions about them are asked without.",
        )

    def _subtitles(self, row: Mapping[str, Any]) -> str:
        """The subtitles that the prompt has; empty if there are none."""
        lines = read_srt(self._file(self.clip_name(row)))
        if not lines:
            return ""
        seconds = clip_seconds(self.clip_path(self.clip_name(row))) or lines[-1].stop
        return "\n".join(uniform_lines(lines, seconds, self.subtitle_frames))

    def _has_subtitles(self, name: str) -> bool:
        try:
            return has_subtitles(self._file(name))
        except (UserError, OSError):  # the questions about this clip fail
            return False

    def _file(self, name: str) -> Path:
        """The file of a clip's subtitles, which may be absent."""
        return image_file(f"{name}.srt", [self.home / "subtitle"], self.images_anywhere)
