"""What a budget of visual tokens can count, and how it is said."""

from __future__ import annotations

from typing import Literal, TypeAlias

Count: TypeAlias = Literal["final", "layer_average", "flops"]

WORDS: dict[Count, str] = {"final": "", "layer_average": "layer average", "flops": "FLOPs"}


def in_words(ratio: float | None, tokens: int | None, count: Count) -> str:
    """A budget in words.

    >>> in_words(0.333, None, "final"), in_words(0.333, 192, "layer_average")
    ('33.3 %', '192 tokens, layer average')
    """
    amount = f"{tokens} tokens" if tokens is not None else f"{100 * ratio:.4g} %" if ratio else ""
    return ", ".join(filter(None, (amount, WORDS[count])))
