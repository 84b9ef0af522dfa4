"""Charades-STA: when in a clip does what a sentence describes happen?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ivcp.core.errors import UserError
from ivcp.core.types import Sample, Span, Task
from ivcp.datasets.annotation_values import brief, fields
from ivcp.datasets.video_benchmark import VideoBenchmark


@dataclass(frozen=True, kw_only=True)
class CharadesSTA(VideoBenchmark):
    """The split test; an answer is the seconds at which the event begins and ends.

    Attributes:
        root: As in `VideoBenchmark`, like the four fields below.
        folder: Usual name: charades_sta, with `data`.
        videos: Folder of the clips; None looks in `Charades_v1_480`, too.
        rows: Published number of sentences.
        images_anywhere: Whether paths of clips may leave the folders.
    """

    benchmark: ClassVar[str] = "Charades-STA"
    hub: ClassVar[str] = "lmms-lab/charades_sta"
    columns: ClassVar[tuple[str, ...]] = ("video", "caption", "timestamp")
    tables: ClassVar[tuple[str, ...]] = (
        "data/test-00000-of-00001.parquet",
        "test-00000-of-00001.parquet",
    )
    subfolders: ClassVar[tuple[str, ...]] = ("Charades_v1_480", *VideoBenchmark.subfolders)

    rows: int | None = 3720

    @property
    def task(self) -> Task:
        return "temporal_grounding"

    def add_question(self, sample: Sample, row: Mapping[str, Any], where: str) -> Sample:
        caption, timestamp = fields(row, ("caption", "timestamp"), where)
        return replace(sample, question=caption, answer=read_span(timestamp, where))


def read_span(values: object, where: str) -> Span:
    """Two times in order, in seconds.

    >>> read_span([24.3, 30], "row 3")
    (24.3, 30.0)

    Raises:
        UserError: They are something else.
    """
    try:
        start, stop = map(float, values)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        start = stop = math.nan
    if not 0 <= start < stop < math.inf:
        raise UserError(
            f"Expected a start and a later end, in seconds, in {where}; got {brief(values)}."
        )
    return start, stop
