"""Numbers as readers see them; "-" stands for a number that is not there."""

from __future__ import annotations

from ivcp.report.runs import Unit

SMALL_P = 0.001
UNKNOWN = "-"


def score(value: float | None, unit: Unit = "%") -> str:
    """A fraction in percent, points as they are.

    >>> score(0.841), score(1134.66, ""), score(None)
    ('84.1', '1134.7', '-')
    """
    return "-" if value is None else f"{_scaled(value, unit):.1f}"


def change(value: float | None, unit: Unit = "%") -> str:
    """A difference of two scores.

    >>> change(-0.015), change(-0.0001), change(12.0, "")
    ('-1.5', '+0.0', '+12.0')
    """
    return "-" if value is None else f"{round(_scaled(value, unit), 1) + 0.0:+.1f}"


def p_value(value: float | None) -> str:
    """Two digits, or "<0.001".

    >>> p_value(0.0312), p_value(0.0002), p_value(1.0)
    ('0.031', '<0.001', '1')
    """
    if value is None:
        return "-"
    return f"<{SMALL_P}" if value < SMALL_P else f"{value:.2g}"


def milliseconds(value: float | None) -> str:
    """Three digits or more.

    >>> milliseconds(1.234), milliseconds(12.34), milliseconds(1234.5)
    ('1.23', '12.3', '1234')
    """
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def megabytes(value: float | None) -> str:
    """Three digits.

    >>> megabytes(15_940_000)
    '15.9'
    """
    return "-" if value is None else f"{value / 1e6:.3g}"


def plain(value: str | float | None) -> str:
    """A text or a number without a unit.

    >>> plain(0.5), plain(200), plain("2+6"), plain("")
    ('0.5', '200', '2+6', '-')
    """
    if value is None or value == "":
        return "-"
    return value if isinstance(value, str) else f"{value:g}"


def _scaled(value: float, unit: Unit) -> float:
    return 100 * value if unit == "%" else value
