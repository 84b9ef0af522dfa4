"""What a run writes down: one record a sample, and files that survive a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.metric import ScoredAnswer
from ivcp.core.types import Answer, Box, Sample, Task

TIMES = (
    "vision_ms", "language_prefill_ms", "pruning_overhead_ms", "time_to_first_token_ms",
    "decode_ms_per_token",
)  # fmt: skip
"""Fields of `Record` in milliseconds: the batch's time divided by its size."""


ASKED = ("id", "task", "question", "answer", "options", "hint", "benchmark")
"""Fields that `Record` and `Sample` share, beside labels."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of `predictions.jsonl`.

    Attributes:
        index: Index into the dataset.
        id: The sample's id; `index-<n>` if not even that could be read.
        task: What was asked for; None if that could not be read.
        question: The referring expression or bare question.
        options: Texts of the options A, B, C, ...
        hint: What was told beforehand.
        benchmark: Published name of the set.
        labels: What results are broken down by.
        prompt: The prompt's text, each image one placeholder.
        answer: Ground truth; None if it could not be read.
        prediction: The model's text.
        parsed: What the metric read from it; a box is in pixels of the original image.
        score: How right it is, in [0, 1].
        judged: What a judging model replied about it; None if none was asked.
        by_rule: Parsed and score as the metric's rule has them, where a judge's stand above.
        failed: Why the sample could not be evaluated, or None.
        image_size: Width and height in pixels of the last original image.
        prompt_tokens: `S`, padding not counted.
        visual_tokens: `V`, over all images of the prompt.
        kept_tokens: `K`, after the last stage.
        generated_tokens: Tokens of the answer, the closing one included.
        images: The visual tokens of each image, areas in fractions of the original image.
        kept: (K,) ascending indices into the prompt.
        reasons: Why tokens were kept: for each word, indices into the prompt.
        layer_tokens: (L,) tokens that each decoder layer processed in prefill.
        kv_cache_bytes: Bytes really allocated after prefill: the batch's, divided by its size.
        kv_cache_bytes_unpruned: The same for the same batch without pruning.
        prefill_flops: By formula, language model only.
        prefill_flops_counted: As PyTorch dispatched them; of one sample of a run, else None.
        prefill_flops_unpruned: The same without pruning.
        vision_ms: Vision tower; Qwen's holds its projector, others' stands beside it.
        language_prefill_ms: Decoder layers in prefill, without the pruning overhead.
        pruning_overhead_ms: Choosing tokens and cutting.
        time_to_first_token_ms: From the call to the first token's logits.
        decode_ms_per_token: Each further token; None if there is none.
    """

    index: int
    id: str
    task: Task | None = None
    question: str = ""
    options: tuple[str, ...] = ()
    hint: str = ""
    benchmark: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""
    answer: Answer | None = None
    prediction: str = ""
    parsed: Answer | None = None
    score: float = 0.0
    judged: str | None = None
    by_rule: tuple[Answer | None, float] | None = None
    failed: str | None = None
    image_size: tuple[int, int] | None = None
    prompt_tokens: int = 0
    visual_tokens: int = 0
    kept_tokens: int = 0
    generated_tokens: int = 0
    images: tuple[ImageLayout, ...] = ()
    kept: tuple[int, ...] = ()
    reasons: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    layer_tokens: tuple[int, ...] = ()
    kv_cache_bytes: float = 0.0
    kv_cache_bytes_unpruned: float = 0.0
    prefill_flops: int = 0
    prefill_flops_counted: int | None = None
    prefill_flops_unpruned: int = 0
    vision_ms: float | None = None
    language_prefill_ms: float | None = None
    pruning_overhead_ms: float | None = None
    time_to_first_token_ms: float | None = None
    decode_ms_per_token: float | None = None

    @classmethod
    def of(cls, index: int, sample: Sample, **results: Any) -> Record:
        """The record of a sample."""
        return cls(
            index=index,
            **{name: getattr(sample, name) for name in ASKED},
            labels=dict(sample.labels),
            **results,
        )

    def sample(self) -> Sample:
        """The sample without its images.

        Raises:
            ValueError: It could not be read.
        """
        if self.task is None or self.answer is None:
            raise ValueError(f"Expected the record of a readable sample, but got {self.id}.")
        asked = {name: getattr(self, name) for name in ASKED}
        return Sample(images=(), labels=self.labels, **asked)

    def scored(self) -> ScoredAnswer:
        """What counts for the metric."""
        return ScoredAnswer(self.parsed, self.answer, self.score, self.labels)

    def unjudged(self) -> Record:
        """The record as it was before a judge graded it."""
        parsed, score = self.by_rule or (self.parsed, self.score)
        return replace(self, parsed=parsed, score=score, judged=None, by_rule=None)

    def line(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def on_original(image: ImageLayout, shown: Box) -> ImageLayout:
    """The layout with areas in fractions of the original image.

    Args:
        image: Its areas are fractions of what the model is shown.
        shown: What the model is shown, as fractions of the original image.
    """
    left, top, right, bottom = shown
    wide, high = right - left, bottom - top

    def moved(area: Box) -> Box:
        x1, y1, x2, y2 = area
        return left + x1 * wide, top + y1 * high, left + x2 * wide, top + y2 * high

    return ImageLayout(tuple(replace(grid, area=moved(grid.area)) for grid in image.grids))


def read_records(path: Path) -> list[Record]:
    """The records of a file; lists come back as tuples, as `Record` has them.

    Lines that a kill, a full disk or a loss of power has torn are left out.
    """
    records = []
    with path.open("rb") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                if line.endswith(b"\n"):
                    records.append(_record(json.loads(line)))
    return records


def _record(told: dict[str, Any]) -> Record:
    names = {field.name for field in fields(Record)}
    known = {key: value for key, value in told.items() if key in names and key != "images"}
    return Record(**_tuples(known), images=tuple(map(_image, told.get("images", ()))))


def _image(told: Any) -> ImageLayout:
    """An image as a line tells it; older lines tell start, rows and columns of one grid."""
    if isinstance(told, list):
        return ImageLayout((Grid(*told),))
    grids = ({**grid, "area": tuple(grid["area"])} for grid in told["grids"])
    return ImageLayout(tuple(Grid(**grid) for grid in grids))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


@contextlib.contextmanager
def told_if_full(path: Path) -> Iterator[None]:
    """Turn "no space left" inside the block into one sentence.

    Raises:
        UserError: The disk or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"The disk is full: {path} could not be written. What was written before is kept; "
            f"free some space or choose another folder with hydra.run.dir=FOLDER."
        ) from error


class LineFile:
    """A file of whole lines: each call writes through to the operating system or leaves no trace.

    Args:
        path: Replaced if it exists.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        with told_if_full(path):
            self.file = path.open("wb", buffering=0)

    def append(self, lines: Iterable[str]) -> None:
        """Write lines; after a failure the file ends with the last whole line before them.

        Raises:
            UserError: The disk is full.
        """
        data = memoryview("".join(lines).encode())
        with told_if_full(self.path):
            try:
                written = 0
                while written < len(data):
                    written += self.file.write(data[written:]) or 0
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self.file.fileno(), self.size)
                raise
        self.size += len(data)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        UserError: The disk is full.
    """
    draft = path.with_name(f".{path.name}.part")
    with told_if_full(path):
        try:
            with draft.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
