"""EgoSchema: the 500 questions whose answers are public, about first-person clips of 3 minutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any, ClassVar

from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.datasets.annotation_values import brief, fields
from ivcp.datasets.answer_options import LETTERED, read_options
from ivcp.datasets.video_benchmark import VideoBenchmark

ENDING = "Answer with the option's letter from the given choices directly."
"""Source of the wording: `lmms_eval/tasks/egoschema` of lmms-eval; VLMEvalKit lacks the set."""


@dataclass(frozen=True, kw_only=True)
class EgoSchema(VideoBenchmark):
    """Five options a question.

    Attributes:
        root: As in `VideoBenchmark`, like the four fields below.
        folder: Usual name: egoschema, with `Subset`.
        videos: Folder of `<video_idx>.mp4`.
        rows: Published number of questions.
        images_anywhere: Whether paths of clips may leave the folders.
    """

    benchmark: ClassVar[str] = "EgoSchema"
    hub: ClassVar[str] = "lmms-lab/egoschema"
    columns: ClassVar[tuple[str, ...]] = ("video_idx", "question", "option", "answer")
    tables: ClassVar[tuple[str, ...]] = ("Subset/test-00000-of-00001.parquet",)
    clip_column: ClassVar[str] = "video_idx"
    key: ClassVar[str] = "video_idx"

    rows: int | None = 500

    def add_question(self, sample: Sample, row: Mapping[str, Any], where: str) -> Sample:
        question, option, answer = fields(row, ("question", "option", "answer"), where)
        lines = read_options(option, where)
        if str(answer) not in map(str, range(len(lines))):
            raise UserError(
                f"Expected an answer from 0 to {len(lines) - 1} in {where}; got {brief(answer)}."
            )
        return replace(
            sample,
            question=question,
            options=tuple(LETTERED.sub("", line) for line in lines),
            answer=ascii_uppercase[int(answer)],
            prompt="\n".join([str(question), *lines, ENDING]),
        )
