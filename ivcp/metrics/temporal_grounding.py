"""Events in a clip: intersection over union of spans of time, recall at thresholds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal, get_args

import pandas as pd

from ivcp.core.errors import UserError
from ivcp.core.metric import AnswerMetric, ToBox, unparsed_rate
from ivcp.core.types import Answer, Sample, Span

THRESHOLDS = (0.3, 0.5, 0.7)

Compat = Literal["strict", "lmms"]

TIME = r"(\d+:\d{1,2}(?::\d{1,2})?(?:\.\d+)?|\d+(?:\.\d+)?)"
UNIT = r"\s*(?:s|sec|secs|seconds?|seonds)?\b\.?"
RANGE = re.compile(
    rf"(?<![\w:.]){TIME}{UNIT}\s*(?:[-\u2013\u2014]|to|until|till)\s*{TIME}(?![\d:])"
)
BETWEEN = re.compile(rf"\bbetween\s+{TIME}{UNIT}\s*and\s*{TIME}")
START = re.compile(rf"\bstart\w*\D{{0,40}}?{TIME}")
STOP = re.compile(rf"\bend\w*\D{{0,40}}?{TIME}")

LMMS_RANGE = re.compile(r"(?<!\d)(\d+(?:\.+\d*)?)\s*-\s*(\d+(?:\.+\d*)?)")
"""As lmms-eval has it, but written so that a reply of many digits takes no cubic time."""
LMMS_NUMBER = re.compile(r"\b(\d+\.\d+\b|\b\d+)\b")
LMMS_CLOCK = re.compile(r"\b(\d{1,2}:\d{2}:\d{2})\b")
LMMS_EXAMPLE = "a specific example is : 20.8 - 30.0 seconds"


def seconds(text: str) -> float:
    """Seconds of a number, or of minutes and seconds, with hours or without.

    >>> seconds("24.3"), seconds("1:05"), seconds("01:00:02.5")
    (24.3, 65.0, 3602.5)
    """
    total = 0.0
    for part in text.split(":"):
        total = 60 * total + float(part)
    return total


def read_span(prediction: str) -> Span | None:
    """The first span of time that a text names, in seconds and in order; None if there is none.

    Two times joined by a dash, "to", "until" or "between ... and"; else the first time behind
    "start" and that behind "end".

    >>> read_span("The event happens in the 24.3 - 30.4 seconds."), read_span("9 to 4.5")
    ((24.3, 30.4), (4.5, 9.0))
    >>> read_span("from 0:02 until 1:05"), read_span("It starts at 3 s. It ends at 7 s.")
    ((2.0, 65.0), (3.0, 7.0))
    >>> read_span("at 5 seconds") is None
    True
    """
    text = prediction.lower()
    if match := RANGE.search(text) or BETWEEN.search(text):
        times = seconds(match[1]), seconds(match[2])
    elif (start := START.search(text)) and (stop := STOP.search(text)):
        times = seconds(start[1]), seconds(stop[1])
    else:
        return None
    return ordered(times)


def read_span_as_lmms(prediction: str) -> Span | None:
    """The span that lmms-eval reads.

    Differs from `read_span`: a clock time in a range is read as its last and first number, units
    must not stand before a dash, and in sentences only the first number of each counts.

    >>> read_span_as_lmms("24.3 - 30.4 seconds"), read_span_as_lmms("0:02 - 0:05")
    ((24.3, 30.4), (0.0, 2.0))
    >>> read_span_as_lmms("from 3 s to 7 s") is None
    True
    """
    text = prediction.lower().replace(LMMS_EXAMPLE, "").replace("to", "-")
    if match := LMMS_RANGE.search(text):
        try:
            return ordered((float(match[1]), float(match[2])))
        except ValueError:  # such as "3..5", on which the original fails
            return None
    sentences = [part for part in re.split(r"[!?\n]", text) if re.search("start|end|happen", part)]
    for pattern in (LMMS_NUMBER, LMMS_CLOCK):
        times = [seconds(match[1]) for part in sentences if (match := pattern.search(part))]
        if len(times) > 1:
            return ordered((times[0], times[1]))
    return None


def ordered(times: Span) -> Span:
    """The earlier time first."""
    return min(times), max(times)


def span_iou(predicted: Span | None, truth: Span) -> float:
    """Intersection over union in [0, 1] of two spans; 0 for None.

    >>> span_iou((0, 2), (1, 3)), span_iou((0, 1), (2, 3)), span_iou(None, (0, 1))
    (0.3333333333333333, 0.0, 0.0)
    """
    if predicted is None:
        return 0.0
    overlap = max(0.0, min(predicted[1], truth[1]) - max(predicted[0], truth[0]))
    union = (predicted[1] - predicted[0]) + (truth[1] - truth[0]) - overlap
    return overlap / union if union > 0 else 0.0


def as_span(answer: object) -> Span:
    """The answer as a span.

    Raises:
        TypeError: The answer is anything but two numbers.
    """
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise TypeError(f"Expected a start and an end as answer, but got {answer!r}.")
    start, stop = (float(value) for value in answer)
    return start, stop


class TemporalGroundingMetrics(AnswerMetric):
    """Mean IoU, recall at IoU thresholds (`>=`) and unparsed rate; the score is the IoU.

    Args:
        compat: "strict" reads clock times, units and whole sentences; "lmms" reads as lmms-eval.

    Raises:
        UserError: `compat` is something else.
    """

    primary_metric = "mean_iou"
    scored_tasks = ("temporal_grounding",)

    def __init__(self, compat: Compat = "strict") -> None:
        super().__init__()
        if compat not in get_args(Compat):
            raise UserError(
                f"metric.compat must be {' or '.join(get_args(Compat))} for spans of time; got "
                f"{compat!r}."
            )
        self.compat = compat

    def read(self, prediction: str, sample: Sample, to_box: ToBox) -> Span | None:
        """A span in seconds or None."""
        read = read_span_as_lmms if self.compat == "lmms" else read_span
        span = read(prediction)
        return span if span and all(map(math.isfinite, span)) else None

    def score(self, parsed: Answer | None, sample: Sample) -> float:
        """The IoU."""
        return span_iou(None if parsed is None else as_span(parsed), as_span(sample.answer))

    def summarize(self, scored: pd.DataFrame) -> Mapping[str, float]:
        """`mean_iou`, `r@0.3`, `r@0.5`, `r@0.7`, `unparsed_rate`."""
        iou = scored["score"]
        return {
            "mean_iou": float(iou.mean()),
            **{f"r@{limit}": float((iou >= limit).mean()) for limit in THRESHOLDS},
            "unparsed_rate": unparsed_rate(scored),
        }
