"""MVBench: 20 tasks of 200 questions about short clips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.core.video import Video
from ivcp.datasets.annotation_values import brief, fields
from ivcp.datasets.answer_options import in_brackets, letter_of, read_options
from ivcp.datasets.video_benchmark import Row, VideoBenchmark

FOLDERS_OF_TASKS: dict[str, tuple[str, ...]] = {
    "action_sequence": ("star/Charades_v1_480", "star/Charades_segment"),
    "action_prediction": ("star/Charades_v1_480", "star/Charades_segment"),
    "action_antonym": ("ssv2_video", "ssv2_video_mp4"),
    "fine_grained_action": ("Moments_in_Time_Raw/videos",),
    "unexpected_action": ("FunQA_test/test",),
    "object_existence": ("clevrer/video_validation",),
    "object_interaction": ("star/Charades_v1_480", "star/Charades_segment"),
    "object_shuffle": ("perception/videos",),
    "moving_direction": ("clevrer/video_validation",),
    "action_localization": ("sta/sta_video", "sta/sta_video_segment"),
    "scene_transition": ("scene_qa/video",),
    "action_count": ("perception/videos",),
    "moving_count": ("clevrer/video_validation",),
    "moving_attribute": ("clevrer/video_validation",),
    "state_change": ("perception/videos",),
    "fine_grained_pose": ("nturgbd", "nturgbd_convert"),
    "character_order": ("perception/videos",),
    "egocentric_navigation": ("vlnqa",),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment"),
    "counterfactual_inference": ("clevrer/video_validation",),
}
"""Folders of each task's clips: of the branch main, and of the branch video where they differ."""

RATE = 3.0
"""Frames a second of the folders of images in `tvqa`."""

CUT = "segment"
"""In the names of folders whose clips are parts already."""

SYSTEM = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail "
    "and movement of objects, and the action and pose of persons. Based on your observations, "
    "select the best option that accurately addresses the question.\n"
)
ENDING = "\nOnly give the best option.Best option:("
"""Source of the wording: `vlmeval/dataset/mvbench.py` of VLMEvalKit."""


@dataclass(frozen=True, kw_only=True)
class MVBench(VideoBenchmark):
    """Two to five options a question; of the branch main or video, whichever is there.

    In the branch main, some questions are about a part of their clip, and one task has folders of
    images instead of clips; in the branch video, all clips are files that are cut already.

    Differs from VLMEvalKit: its first sentences, "Carefully watch the video ...", stand behind the
    clip, because every prompt begins with its clips here.

    Attributes:
        root: As in `VideoBenchmark`, like the four fields below.
        folder: Usual name: MVBench, with `json/<task>.json`.
        videos: Folder of the unpacked archives, such as `clevrer`.
        rows: Published number of questions.
        images_anywhere: Whether paths of clips may leave the folders.
    """

    benchmark: ClassVar[str] = "MVBench"
    hub: ClassVar[str] = "OpenGVLab/MVBench"
    columns: ClassVar[tuple[str, ...]] = ("video", "question", "candidates", "answer")
    key: ClassVar[str] = "id"
    label_columns: ClassVar[tuple[str, ...]] = ("task_type",)
    has_frame_folders: ClassVar[bool] = True

    rows: int | None = 4000

    def read_rows(self, home: Path) -> Iterable[Row]:
        """The tasks that are there, in VLMEvalKit's order."""
        for task in FOLDERS_OF_TASKS:
            path = home / "json" / f"{task}.json"
            if path.is_file():  # `notes` compares the number of questions
                yield from self.read_file(path, task)

    def clip_name(self, row: Mapping[str, Any]) -> str:
        return f"{row['task_type']}/{row['video']}"

    def find_clip(self, row: Mapping[str, Any]) -> Path:
        return self._find(row)[1]

    def video(self, row: Mapping[str, Any]) -> Video:
        folder, path = self._find(row)
        rate = RATE if path.is_dir() else None
        if CUT in folder or row.get("start") is None:
            return Video(path=path, rate=rate)
        start, stop = bounds(row)
        return Video(path=path, rate=rate, start=start, stop=stop)

    def _find(self, row: Mapping[str, Any]) -> tuple[str, Path]:
        """The published folder in which a row's clip lies, and its path."""
        usual, *others = FOLDERS_OF_TASKS[row["task_type"]]
        for folder in (usual, *others, f"data0613/{usual}"):
            with suppress(UserError):
                return folder, self.clip_path(f"{folder}/{row['video']}")
        return usual, self.clip_path(f"{usual}/{row['video']}")  # raises what is wrong

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


def bounds(row: Mapping[str, Any]) -> tuple[float, float]:
    """The part of a clip that a row is about, in seconds.

    >>> bounds({"start": 1.5, "end": 4})
    (1.5, 4.0)

    Raises:
        UserError: They are no times, or not in order.
    """
    start, stop = row.get("start"), row.get("end")
    if (
        isinstance(start, bool | str)
        or not isinstance(start, int | float)
        or not isinstance(stop, int | float)
        or not 0 <= start < stop
    ):
        raise UserError(
            f"Expected a start before an end, in seconds; got {brief(start)} and {brief(stop)}."
        )
    return float(start), float(stop)
