"""Values with their units, for reading."""

from __future__ import annotations


def show(value: float | None, unit: str) -> str:
    """A value for reading.

    >>> show(0.5, "%"), show(2_500_000, "B"), show(3.2e9, "F"), show(12.345, "ms"), show(None, "")
    ('50.0 %', '2.50 MB', '3.200 G', '12.35 ms', '-')
    """
    if value is None:
        return "-"
    if unit == "%":
        return f"{100 * value:.1f} %"
    if unit == "B":
        return f"{value / 1e6:,.2f} MB"
    if unit == "F":
        return f"{value / 1e9:,.3f} G"
    return f"{value:,.2f} {unit}".strip() if unit else f"{value:,.1f}"
