"""Qwen3-VL."""

from __future__ import annotations

from expectation import Written, thousandths

from expected.qwen2vl import ASSISTANT, PREPROCESSOR, TURNS, USER, VISION, Qwen
from expected.qwen25vl import BOX


class Expected(Qwen):
    """No system prompt, larger patches, boxes in thousandths."""

    chat = TURNS
    preprocessor = {**PREPROCESSOR, "size": {"shortest_edge": 64, "longest_edge": 3200}}
    full_size = {"patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216}}
    around = (USER, VISION, ASSISTANT)
    written = (Written({}, thousandths, BOX, 0.997),)
    factor = 32
