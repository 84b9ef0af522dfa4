"""Similarity of texts against a plain table of edit distances, and its time."""

from __future__ import annotations

import random
import time

import pytest

from ivcp.metrics.anls import Anls, similarity


def edits(a: str, b: str) -> int:
    """Levenshtein's distance by the textbook's table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def test_random_texts() -> None:
    rng = random.Random(0)
    for _ in range(300):
        a, b = ("".join(rng.choices("aé字 ", k=rng.randrange(12))) for _ in "12")
        single = [" ".join(text.split()) for text in (a, b)]
        expected = 1 - edits(*single) / (max(len(a), len(b)) or 1)
        assert similarity(a, b) == pytest.approx(expected)


def test_a_long_reply_takes_no_time() -> None:
    start = time.perf_counter()
    assert Anls().compare("ab c" * 2500, ["xb d" * 2500]) >= 0.5
    assert time.perf_counter() - start < 1


def test_half_a_character_is_compared_like_any_other() -> None:
    assert similarity("a\ud83d", "a\ud83d") == 1
