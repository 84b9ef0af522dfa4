"""DocVQA and InfoVQA: average normalised Levenshtein similarity."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from ivcp.metrics.open_ended import OpenEndedMetrics

THRESHOLD = 0.5
"""A similarity below this counts as 0."""


def similarity(reply: str, accepted: str) -> float:
    """1 less the edit distance over the longer length, in [0, 1].

    The distance is that of the texts in lower case with single spaces, the length that of the texts
    as they are, as VLMEvalKit does it.

    >>> similarity("ITC", "itc "), similarity("abcd", "abxy")
    (1.0, 0.5)
    """
    distance = Levenshtein.distance(*(" ".join(text.lower().split()) for text in (reply, accepted)))
    return 1 - distance / (max(len(reply), len(accepted)) or 1)


class Anls(OpenEndedMetrics):
    """Similarity to the nearest accepted text, 0 below one half."""

    primary_metric = "anls"

    def compare(self, reply: str, accepted: Sequence[str]) -> float:
        nearest = max(similarity(reply, text) for text in accepted)
        return nearest if nearest >= THRESHOLD else 0.0
