"""TempCompass: questions about what only the order of frames shows, about short clips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, ClassVar, Literal, get_args

from ivcp.core.errors import UserError
from ivcp.core.types import Sample, Task
from ivcp.datasets.annotation_values import brief, fields
from ivcp.datasets.answer_options import LETTERED, letter_of
from ivcp.datasets.video_benchmark import Row, VideoBenchmark

Part = Literal["multi-choice", "yes_no", "caption_matching"]

ENDINGS = {
    "multi-choice": "Please directly give the best option:",
    "yes_no": "Please answer yes or no:",
    "caption_matching": "Please directly give the best option:",
}
"""Source of the wording: `vlmeval/dataset/tempcompass.py` of VLMEvalKit."""


@dataclass(frozen=True, kw_only=True)
class TempCompass(VideoBenchmark):
    """One of its parts; that of captions is left out, because a judge must read them.

    The options of "multi-choice" and "caption_matching" are lines behind the question. Those of the
    latter keep their names ("Caption A: ...", "Option 1: ..."), by which models answer.

    Attributes:
        part: "multi-choice", "yes_no" or "caption_matching".
        root: As in `VideoBenchmark`, like the four fields below.
        folder: Usual name: TempCompass, with a folder for each part.
        videos: Folder of `<video_id>.mp4`.
        rows: Published number of questions.
        images_anywhere: Whether paths of clips may leave the folders.
    """

    hub: ClassVar[str] = "lmms-lab/TempCompass"
    columns: ClassVar[tuple[str, ...]] = ("video_id", "question", "answer")
    clip_column: ClassVar[str] = "video_id"
    label_columns: ClassVar[tuple[str, ...]] = ("dim", "task_type")

    part: Part

    def __post_init__(self) -> None:
        """Check types and the part.

        Raises:
            UserError: A field has another type or none of its values.
        """
        if self.part not in get_args(Part):
            raise UserError(
                f"dataset.part must be one of {', '.join(get_args(Part))}; got {self.part!r}."
            )
        super().__post_init__()

    @property
    def benchmark(self) -> str:  # type: ignore[override]
        """VLMEvalKit's name of the part."""
        return "TempCompass_YorN" if self.part == "yes_no" else "TempCompass_MCQ"

    @property
    def task(self) -> Task:
        return "yes_no" if self.part == "yes_no" else "multiple_choice"

    def read_rows(self, home: Path) -> Iterable[Row]:
        path = self.file(f"{self.part}/test-00000-of-00001.parquet")
        return self.read_file(path, self.part)

    def add_question(self, sample: Sample, row: Mapping[str, Any], where: str) -> Sample:
        text, answer = fields(row, ("question", "answer"), where)
        if not isinstance(text, str) or not isinstance(answer, str):
            raise UserError(
                f"Expected a question and an answer as texts in {where}; got {brief(text)} and "
                f"{brief(answer)}."
            )
        sample = replace(sample, prompt=f"{text}\n{ENDINGS[self.part]}")
        question, *lines = text.split("\n")
        if self.part == "yes_no":
            return replace(sample, question=text, answer=answer.strip().capitalize())
        if self.part == "caption_matching":
            right = letter_of(answer, lines, where)
            return replace(sample, question=question, options=tuple(lines), answer=right)
        letters = dict(zip(lines, ascii_uppercase, strict=False))
        named = [letter for line, letter in letters.items() if answer in (line, letter)]
        right = named[0] if named else letter_of(answer, lines, where)
        options = tuple(LETTERED.sub("", line) for line in lines)
        return replace(sample, question=question, options=options, answer=right)
