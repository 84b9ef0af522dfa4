"""The records that every part of the framework exchanges.

Shape legend, used in every docstring and shape comment of the package: `B` batch, `S` prompt
length, `V` visual tokens, `K` kept visual tokens, `T` text queries, `H` attention heads, `G`
key/value heads, `D` head dim, `C` hidden size, `L` decoder layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from PIL import Image

Box = tuple[float, float, float, float]
"""`(x1, y1, x2, y2)` with `x1 <= x2`, `y1 <= y2`; the docstring at hand names the frame."""

Task = Literal["grounding", "yes_no", "multiple_choice"]
"""What a sample asks for: a box, the word yes or no, or the letter of an option."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question about one or more images.

    Attributes:
        id: Unique in its dataset and stable over runs, machines and dataset order.
        task: What is asked for; decides prompt, parser and metric.
        images: RGB images, in the order in which the prompt shows them.
        question: The referring expression for grounding, the bare question otherwise.
        answer: Ground truth: a `Box` in pixels of the original image, "Yes" / "No", or the
            letter of the right option.
        options: Texts of the options A, B, C, ... of a multiple-choice question.
    """

    id: str
    task: Task
    images: tuple[Image.Image, ...]
    question: str
    answer: str | Box
    options: tuple[str, ...] = ()
