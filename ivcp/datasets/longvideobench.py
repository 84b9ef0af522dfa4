"""LongVideoBench: 1,337 questions of the split val, about clips of seconds to one hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any, ClassVar

from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.datasets.annotation_values import brief, fields
from ivcp.datasets.answer_options import read_options
from ivcp.datasets.video_benchmark import VideoBenchmark

ENDING = "Answer with the option's letter from the given choices directly."
"""Source of the wording: `vlmeval/dataset/longvideobench.py` of VLMEvalKit."""


@dataclass(frozen=True, kw_only=True)
class LongVideoBench(VideoBenchmark):
    """Two to five options a question, without subtitles.

    Attributes:
        root: As in `VideoBenchmark`, like the four fields below.
        folder: Usual name: LongVideoBench, with `lvb_val.json`.
        videos: Folder of the unpacked `videos.tar`.
        rows: Published number of questions.
        images_anywhere: Whether paths of clips may leave the folders.
    """

    benchmark: ClassVar[str] = "LongVideoBench"
    hub: ClassVar[str] = "longvideobench/LongVideoBench"
    columns: ClassVar[tuple[str, ...]] = ("id", "video_path", "question", "correct_choice")
    tables: ClassVar[tuple[str, ...]] = ("lvb_val.json", "validation-00000-of-00001.parquet")
    clip_column: ClassVar[str] = "video_path"
    key: ClassVar[str] = "id"
    label_columns: ClassVar[tuple[str, ...]] = (
        "duration_group",
        "question_category",
        "topic_category",
    )

    rows: int | None = 1337

    def add_question(self, sample: Sample, row: Mapping[str, Any], where: str) -> Sample:
        question, choice = fields(row, ("question", "correct_choice"), where)
        options = read_options(_candidates(row), where)
        if (
            isinstance(choice, bool)
            or not isinstance(choice, int)
            or not 0 <= choice < len(options)
        ):
            raise UserError(
                f"Expected a correct_choice from 0 to {len(options) - 1} in {where}; got "
                f"{brief(choice)}."
            )
        letters = zip(ascii_uppercase, options, strict=False)
        lines = [f"{letter}. {text}" for letter, text in letters]
        return replace(
            sample,
            question=question,
            options=options,
            answer=ascii_uppercase[choice],
            prompt="\n".join([str(question), *lines, ENDING]),
        )


def _candidates(row: Mapping[str, Any]) -> Any:
    """The options: a list in the JSON file, the columns option0 to option4 in the table."""
    if "candidates" in row:
        return row["candidates"]
    options = [row.get(f"option{number}") for number in range(5)]
    return [option for option in options if option not in (None, "N/A")]
