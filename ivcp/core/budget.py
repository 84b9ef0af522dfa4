"""What a budget of visual tokens counts and spans, and its words."""

from __future__ import annotations

from typing import Literal, TypeAlias

Count: TypeAlias = Literal["final", "layer_average", "flops"]
Over: TypeAlias = Literal["video", "frame", "sample"]
"""What one budget holds for: an image or video; an image or frame; all those of a sample."""

WORDS: dict[Count, str] = {"final": "", "layer_average": "layer average", "flops": "FLOPs"}
OVER_WORDS: dict[Over, str] = {"video": "", "frame": "per frame", "sample": "per sample"}


def in_words(ratio: float | None, tokens: int | None, count: Count, over: Over = "video") -> str:
    """A budget in words.

    >>> in_words(0.333, None, "final"), in_words(0.333, 192, "layer_average")
    ('33.3 %', '192 tokens, layer average')
    >>> in_words(0.25, None, "final", "frame")
    '25 %, per frame'
    """
    amount = f"{tokens} tokens" if tokens is not None else f"{100 * ratio:.4g} %" if ratio else ""
    return ", ".join(filter(None, (amount, WORDS[count], OVER_WORDS[over])))
