"""The records that every part of the framework exchanges.

Shape legend, used in every docstring and shape comment of the package: `B` batch, `S` prompt
length, `V` visual tokens, `K` kept visual tokens, `T` text queries, `H` attention heads, `G`
key/value heads, `D` head dim, `C` hidden size, `L` decoder layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from PIL import Image

if TYPE_CHECKING:
    from ivcp.core.video import Video  # it imports torch, which takes seconds


Box = tuple[float, float, float, float]
"""`(x1, y1, x2, y2)` with `x1 <= x2`, `y1 <= y2`; the docstring at hand names the frame."""

Span = tuple[float, float]
"""`(start, stop)` with `start <= stop`, in seconds from the beginning of the clip."""

Answer: TypeAlias = str | Box | Span | tuple[str, ...]
"""A ground truth (several texts: any of them is right), or an answer parsed from a model's text."""

IMAGE_ID = "image_id"
"""Label with the same text for all questions about one image."""

BOX_BEYOND_IMAGE = "box_beyond_image"
"""Label of a sample whose true box reaches beyond its image."""

Task = Literal["grounding", "yes_no", "multiple_choice", "open_ended", "temporal_grounding"]
"""The kind of answer: a box, the word yes or no, the letter of an option, free text, or a span."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question about images or videos.

    Attributes:
        id: Unique in its dataset; the same in all runs, on all machines and in any dataset order.
        task: The kind of answer; it decides prompt, parser and metric.
        images: RGB images, in the order of the prompt.
        question: The referring expression for grounding, the sentence about an event for temporal
            grounding, otherwise the question alone.
        answer: Ground truth: a `Box` in pixels of the original image, "Yes" / "No", the letter of
            the right option, one or more accepted texts, or a `Span` of the clip.
        options: Texts of the options A, B, C, ... of a multiple-choice question; an empty text is
            no option.
        hint: Text before a multiple-choice question.
        prompt: The dataset's wording of the complete question, used by model families without a
            wording for this task; empty if the dataset has none.
        benchmark: Published name of the dataset ("MMBench_DEV_EN_V11"), by which model families
            choose a wording; empty if it has none.
        labels: Labels by which results are broken down ("category", "split", ...), `IMAGE_ID` and
            `BOX_BEYOND_IMAGE`.
        verbatim: Whether the prompt holds the question as it is, without the family's wording.
        videos: Clips, which the prompt shows before the images.
    """

    id: str
    task: Task
    images: tuple[Image.Image, ...]
    question: str
    answer: Answer
    options: tuple[str, ...] = ()
    hint: str = ""
    prompt: str = ""
    benchmark: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    verbatim: bool = False
    videos: tuple[Video, ...] = ()


class BrokenSample(Exception):  # noqa: N818 (it carries a sample, not a mistake of ours)
    """A sample that cannot be evaluated, with what is known of it; it counts as wrong.

    A dataset raises it `from` the error that is the reason.

    Attributes:
        sample: The sample as far as it could be read, without its images and videos.
    """

    def __init__(self, sample: Sample) -> None:
        super().__init__(sample)
        self.sample = sample
