"""MLVU: questions with options about clips of three minutes to two hours, in seven tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ivcp.core.types import Sample
from ivcp.datasets.annotation_values import fields
from ivcp.datasets.answer_options import in_brackets, letter_of, read_options
from ivcp.datasets.data_root import first_file
from ivcp.datasets.video_benchmark import Row, VideoBenchmark

TASKS = (
    "1_plotQA", "2_needle", "3_ego", "4_count", "5_order", "6_anomaly_reco", "7_topic_reasoning",
)  # fmt: skip
"""Files and folders of the tasks with options; 8 and 9 need a judge and are left out."""

SYSTEM = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, "
    "select the best option that accurately addresses the question."
)
ENDING = "\nOnly give the best option."
"""Source of the wording: `vlmeval/dataset/mlvu.py` of VLMEvalKit."""


@dataclass(frozen=True, kw_only=True)
class MLVU(VideoBenchmark):
    """The development set's questions with options ("M").

    Differs from VLMEvalKit: its first sentences, "Carefully watch this video ...", stand behind
    the clip, because every prompt begins with its clips here.

    Attributes:
        root: As in `VideoBenchmark`, like the four fields below.
        folder: Usual name: MVLU, as the hub spells it, with `MLVU/json` and `MLVU/video`.
        videos: Folder of the folders `1_plotQA` to `7_topic_reasoning`.
        rows: Published number of questions.
        images_anywhere: Whether paths of clips may leave the folders.
    """

    benchmark: ClassVar[str] = "MLVU_MCQ"
    hub: ClassVar[str] = "MLVU/MVLU"
    columns: ClassVar[tuple[str, ...]] = ("video", "question", "candidates", "answer")
    key: ClassVar[str] = "id"
    label_columns: ClassVar[tuple[str, ...]] = ("task_type",)
    subfolders: ClassVar[tuple[str, ...]] = ("MLVU/video", "video")

    rows: int | None = 2174

    def read_rows(self, home: Path) -> Iterable[Row]:
        for file in TASKS:
            paths = [home / part / f"{file}.json" for part in ("MLVU/json", "json")]
            if path := first_file(paths):  # `notes` compares the number of questions
                yield from self.read_file(path, file.partition("_")[2], folder=file)

    def clip_name(self, row: Mapping[str, Any]) -> str:
        return f"{row['folder']}/{row['video']}"

    def add_question(self, sample: Sample, row: Mapping[str, Any], where: str) -> Sample:
        question, candidates, answer = fields(row, ("question", "candidates", "answer"), where)
        options = read_options(candidates, where)
        return replace(
            sample,
            question=question,
            options=options,
            answer=letter_of(answer, options, where),
            prompt=f"{SYSTEM}{in_brackets(question, options)}{ENDING}",
        )
