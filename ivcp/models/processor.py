"""What turns images and texts into inputs of a model, and the images of a batch after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ivcp.core.family import BoxFrame, ModelFamily
from ivcp.core.types import Box


@dataclass(frozen=True)
class Processor:
    """Tokenizer and PIL image processor; the library's own processors need torchvision.

    Attributes:
        tokenizer: Pads on the left.
        images: Resizes, normalises and tiles images.
        config: Configuration of the model.
        family: The family that made it, which encodes prompts.
    """

    tokenizer: Any
    images: Any
    config: Any = None
    family: ModelFamily | None = None


@dataclass(frozen=True)
class ProcessedImages:
    """The images of a batch after the image processor.

    Attributes:
        inputs: Model inputs that hold them.
        texts: For each image, the text that replaces its placeholder in the prompt.
        box_frames: For each image, the frame in which the model writes boxes.
        visible_areas: For each image, the area that the model is shown, as fractions of width and
            height (beyond 0 .. 1 where it is padded); empty if all images are shown completely.
    """

    inputs: dict[str, Tensor]
    texts: list[str]
    box_frames: list[BoxFrame]
    visible_areas: list[Box] = field(default_factory=list)


@dataclass(frozen=True)
class ProcessedVideos:
    """The videos of a batch after a family has processed their frames.

    Attributes:
        inputs: Model inputs that hold them.
        texts: For each video, the text that replaces its placeholder in the prompt.
        frames: For each video, its number of frames where each is shown as an image; None where
            videos are shown as videos.
    """

    inputs: dict[str, Tensor]
    texts: list[str]
    frames: list[int] | None = None
