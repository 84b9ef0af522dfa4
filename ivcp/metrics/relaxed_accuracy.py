"""ChartQA: numbers may be off by five percent, everything else must be equal."""

from __future__ import annotations

from collections.abc import Sequence

from ivcp.metrics.open_ended import OpenEndedMetrics

TOLERANCE = 0.05


def number(text: str) -> float | None:
    """The number that a text is, a percentage as a fraction; None for anything else.

    >>> number("5%"), number("1E3"), number("1,000")
    (0.05, 1000.0, None)
    """
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_match(reply: str, accepted: str) -> bool:
    """Whether a number is within 5 % of the accepted one, or else whether the texts are equal.

    Upper and lower case are equal. Where the accepted number is 0, the texts must be equal.

    Source: ChartQA, section 5.1, as VLMEvalKit computes it.

    >>> relaxed_match("14.7", "14"), relaxed_match("14.8", "14"), relaxed_match("0.0", "0")
    (True, False, False)
    """
    value, truth = number(reply), number(accepted)
    if value is not None and truth:
        return abs(value - truth) / abs(truth) <= TOLERANCE
    return reply.lower() == accepted.lower()


class RelaxedAccuracy(OpenEndedMetrics):
    """Relaxed accuracy against the best of the accepted texts.

    The release takes the error relative to the reply instead of the accepted number.
    """

    primary_metric = "relaxed_accuracy"

    def compare(self, reply: str, accepted: Sequence[str]) -> float:
        answer = reply.strip()
        if self.compat == "release":
            return float(any(relaxed_match(text, answer) for text in accepted))
        return float(any(relaxed_match(answer, text) for text in accepted))
