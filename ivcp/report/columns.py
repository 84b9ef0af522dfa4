"""The columns of all tables: what they hold, how readers see it, and where they appear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Flag, auto
from operator import attrgetter as of
from typing import Any, TypeAlias

from ivcp.report.comparison import Entry
from ivcp.report.rerun import command_of
from ivcp.results.schema import Unit

UNKNOWN = "-"
"""Stands for a number that is not there."""
SMALL_P = 0.001
MARK = "*"
"""Behind scores that differ from the unpruned one by more than chance explains."""

Value: TypeAlias = str | float | None


class Where(Flag):
    """Tables for readers in which a column appears; CSV files have all columns."""

    LIST = auto()  # of all runs and tasks: Markdown, and the page's list of tasks
    PAGE = auto()  # of one dataset, model and metric, on the page
    SCREEN = auto()  # the same on screen
    PAPER = auto()  # the same in LaTeX
    GROUP = auto()  # of a task group


NOWHERE = Where(0)
FILES = Where.LIST | Where.PAGE
WIDE = FILES | Where.SCREEN
ALL = WIDE | Where.PAPER
METHOD = ALL | Where.GROUP
"""Where the columns appear that say which method a line is about."""


def plain(value: str | float) -> str:
    """A text or a number without a unit.

    >>> plain(0.5), plain(200), plain("2+6")
    ('0.5', '200', '2+6')
    """
    return value if isinstance(value, str) else f"{value:g}"


def score(value: float, unit: Unit = "%") -> str:
    """A fraction in percent, points as they are.

    >>> score(0.841), score(1134.66, "")
    ('84.1', '1134.7')
    """
    return f"{100 * value if unit else value:.1f}"


def change(value: float, unit: Unit = "%") -> str:
    """A difference of two scores.

    >>> change(-0.015), change(-0.0001), change(12.0, "")
    ('-1.5', '+0.0', '+12.0')
    """
    return f"{round(100 * value if unit else value, 1) + 0.0:+.1f}"


def p_value(value: float) -> str:
    """Two digits, or "<0.001".

    >>> p_value(0.0312), p_value(0.0002), p_value(1.0)
    ('0.031', '<0.001', '1')
    """
    return f"<{SMALL_P}" if value < SMALL_P else f"{value:.2g}"


def milliseconds(value: float) -> str:
    """Three digits or more.

    >>> milliseconds(1.234), milliseconds(12.34), milliseconds(1234.5)
    ('1.23', '12.3', '1234')
    """
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def megabytes(value: float) -> str:
    """Three digits.

    >>> megabytes(15_940_000)
    '15.9'
    """
    return f"{value / 1e6:.3g}"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: In CSV files, with the unit where it is not plain.
        value: What it holds: a raw number or a text, None for what is not known.
        heading: For readers, with its unit; in as many lines as it has.
        where: Tables for readers that have the column.
        style: How readers see the value.
        show: The cell for readers, where it depends on more than the value.
        ranked: Whether the best of a budget is marked; more is better.
        words: Whether cells hold words, which stand to the left.
        wraps: Whether cells may be broken between words.
        kept: Whether the column stays where nothing of it is known.
    """

    name: str
    value: Callable[[Entry], Any]
    heading: str = ""
    where: Where = NOWHERE
    style: Callable[[Any], str] = plain
    show: Callable[[Entry], str] | None = None
    ranked: bool = False
    words: bool = False
    wraps: bool = False
    kept: bool = False

    def cell(self, entry: Entry) -> str:
        """What readers see."""
        value = self.value(entry)
        if value is None or value == "":
            return UNKNOWN
        return self.show(entry) if self.show else self.style(value)

    def of_task(self, task: str, name: str, heading: str = "") -> Column:
        """The column for one task of a group, in a table whose lines are runs of the group."""

        def value(entry: Entry) -> Any:
            return self.value(line) if (line := entry.task(task)) else None

        def show(entry: Entry) -> str:
            return self.cell(line) if (line := entry.task(task)) else UNKNOWN

        return replace(self, name=name, heading=heading, value=value, show=show)


def last_of(name: str) -> Callable[[Entry], float | None]:
    """What is behind the last stage of a number that every stage has; None without one."""
    values = of(name)
    return lambda entry: (values(entry) or (None,))[-1]


def metric_name(entry: Entry) -> str:
    """The primary metric with its unit."""
    return f"{entry.metric.name} ({entry.metric.unit or 'points'})"


def _difference(entry: Entry) -> str:
    return change(entry.difference or 0.0, entry.metric.unit)


def _difference_with_interval(entry: Entry) -> str:
    unit, ends = entry.metric.unit, (entry.paired.difference.low, entry.paired.difference.high)
    interval = ", ".join(change(end, unit) for end in ends if end is not None)
    return _difference(entry) + (f" [{interval}]" if interval else "")


def _score(entry: Entry) -> str:
    return score(entry.metric.value or 0.0, entry.metric.unit)


def _score_of_unpruned(entry: Entry) -> str:
    """The score, the percentage of the unpruned score in parentheses, and the mark."""
    relative = "" if entry.difference is None else f" ({RELATIVE.cell(entry)})"
    return f"{_score(entry)}{relative}{MARK if entry.paired.significant else ''}"


def marked_score(entry: Entry) -> str:
    """The score, and the mark."""
    return f"{_score(entry)}{MARK if entry.paired.significant else ''}"


def _times(name: str, field: str, heading: str, where: Where) -> tuple[Column, ...]:
    """Median and quartiles of a time in milliseconds; readers see the median."""
    return (
        Column(name, of(f"efficiency.{field}.median"), heading, where, milliseconds),
        Column(f"{name}_q1", of(f"efficiency.{field}.q1")),
        Column(f"{name}_q3", of(f"efficiency.{field}.q3")),
    )


# fmt: off
MODEL = Column("model", of("info.model"), "model", Where.LIST, words=True)
PRUNER = Column("pruner", of("info.pruner"))
VALUE = Column("value", of("metric.value"), "score", ALL, show=_score, ranked=True, kept=True)
RELATIVE = Column("relative", of("relative"), "of\nunpruned %", ALL, score)
DIFFERENCE = "difference"
PLAIN_DIFFERENCE = Column(DIFFERENCE, of(DIFFERENCE), DIFFERENCE, show=_difference)
COMMAND = Column("command", lambda entry: command_of(entry.info), words=True)
COMMON = {"model", "dataset", "primary_metric", "samples"}
"""Columns that are left out of long lists where they say the same of all lines."""

COLUMNS: tuple[Column, ...] = (
    MODEL,
    Column("group", of("group")),
    Column("dataset", of("dataset"), "dataset", Where.LIST, show=of("name"), words=True),
    PRUNER,
    Column("method", of("method"), "method", METHOD, words=True),
    Column("variant", of("variant.text"), "variant", METHOD, words=True, wraps=True),
    Column("ratio", of("ratio"), "ratio", METHOD),
    Column("budget", of("budget"), "budget: asked,\ncame out", METHOD, words=True, wraps=True),
    Column("layer", of("layers"), "layer", METHOD),
    Column("primary_metric", of("metric.name"), "metric", Where.LIST, show=metric_name, words=True),
    Column("unit", lambda entry: "fraction" if entry.metric.unit else "points"),
    VALUE,
    RELATIVE,
    Column("relative_low", of("paired.relative.low")),
    Column("relative_high", of("paired.relative.high")),
    Column(
        DIFFERENCE, of("difference"), "difference\n[95 %]", ALL, show=_difference_with_interval
    ),
    Column("difference_low", of("paired.difference.low")),
    Column("difference_high", of("paired.difference.high")),
    Column("mcnemar_p", of("paired.p"), "p", WIDE, p_value),
    Column("fixed", of("paired.fixed"), "fixed", FILES),
    Column("regressed", of("paired.regressed"), "regressed", FILES),
    Column("unparsed_rate", of("unparsed_rate")),
    Column("keep_ratio", of("tokens.keep_ratio"), "kept %", ALL, score),
    Column("layer_average_ratio", of("tokens.layer_average_ratio"), "layer\navg %", WIDE, score),
    Column("kept_in_box", last_of("tokens.kept_in_box"), "in box %", FILES, score),
    Column("coverage", last_of("tokens.coverage"), "coverage\n% diag.", FILES, score),
    Column("kv_cache_ratio", of("efficiency.kv_cache_ratio"), "KV %", ALL, score),
    Column("kv_cache_bytes", of("efficiency.kv_cache_bytes"), "KV MB", FILES, megabytes),
    Column("prefill_flops_ratio", of("efficiency.prefill_flops_ratio"), "FLOPs %", ALL, score),
    *_times("prefill_ms", "language_prefill_ms", "prefill\nms", ALL),
    *_times("pruning_overhead_ms", "pruning_overhead_ms", "overhead\nms", FILES),
    *_times("decode_ms_per_token", "decode_ms_per_token", "decode\nms/token", WIDE),
    Column("samples", of("samples"), "samples", WIDE),
    Column("failed_samples", of("failed_samples")),
    Column("folder", lambda entry: str(entry.run.folder)),
    COMMAND,
)
# fmt: on

GROUP = Column("group", of("dataset"))
SCORE = replace(VALUE, show=_score_of_unpruned)
"""The score in a table of a group."""
SIGNIFICANT = Column("significant", of("paired.significant"))
