"""Qwen2.5-VL."""

from __future__ import annotations

import numpy as np
from expectation import Size, Written

from expected.qwen2vl import Qwen, resized

BOX = '```json\n[{{"bbox_2d": [{}, {}, {}, {}], "label": "it"}}]\n```'


def pixels_of_the_resized(box: np.ndarray, size: Size) -> list[int]:
    """The box in pixels of the image as the model is shown it."""
    scale = np.array(resized(size, 28)) / size
    return np.round(box * np.tile(scale, 2)).astype(int).tolist()


class Expected(Qwen):
    """Boxes in pixels of the resized image."""

    written = (Written({}, pixels_of_the_resized, BOX, 0.995),)
