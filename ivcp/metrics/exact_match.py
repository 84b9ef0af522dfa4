"""GQA: the reply is the accepted text."""

from __future__ import annotations

from collections.abc import Sequence

from ivcp.metrics.open_ended import OpenEndedMetrics


class ExactMatch(OpenEndedMetrics):
    """Whether reply and accepted text are equal but for case and space around them.

    Of several accepted texts the mean counts, as in VLMEvalKit.

    Example:
        >>> ExactMatch().compare(" Dog", ["dog"]), ExactMatch().compare("dog", ["dog", "cat"])
        (1.0, 0.5)
    """

    primary_metric = "accuracy"

    def compare(self, reply: str, accepted: Sequence[str]) -> float:
        answer = reply.strip().lower()
        return sum(text.strip().lower() == answer for text in accepted) / len(accepted)
