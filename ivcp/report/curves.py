"""What remains of the unpruned score over ratios, and over layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ivcp.report.figures import draw_figure, draw_lines, entries, literal, percent
from ivcp.report.rows import Row
from ivcp.report.runs import Run
from ivcp.report.series import Key, Measure, Point, by_layer, by_ratio, height, make_series, points


def ratio_of(run: Run) -> float | None:
    """The configured keep ratio in percent."""
    return None if run.ratio is None else 100 * run.ratio


def layer_of(run: Run) -> float | None:
    """The layer, of a run that prunes once.

    >>> from pathlib import Path
    >>> run = Run(folder=Path(), model="m", dataset="d", pruner="p", ratio=0.5, layer="2+6",
    ...     primary_metric="accuracy", value=0.5)
    >>> layer_of(run) is None
    True
    """
    return float(run.layer) if run.layer.isdecimal() else None


@dataclass(frozen=True)
class Curve:
    """One kind of curve.

    Attributes:
        label: Of the axis.
        of: Place of a run.
        key_of: The line of a run.
        word: Stands before the variant in a label.
        percent: Whether the axis is in percent.
    """

    label: str
    of: Measure
    key_of: Callable[[Run], Key]
    word: str
    percent: bool


CURVES = (
    Curve("keep ratio, as configured", ratio_of, by_layer, "@ layer", True),
    Curve("layer before which tokens leave", layer_of, by_ratio, "at", False),
)


def draw_curve(rows: Sequence[Row], curve: Curve, everything: Sequence[Run] = ()) -> Figure | None:
    """Score over ratio or layer; None if no method has two of them.

    The score is in percent of the unpruned one where every run has one, else as it is.

    Args:
        rows: Runs of one dataset and primary_metric.
        curve: What to draw.
        everything: All runs of the report, for looks that agree; those of `rows` if it is empty.
    """
    runs = [row.run for row in rows if not row.run.unpruned]
    relative = {row.run: row.relative for row in rows}
    against = all(relative[run] is not None for run in runs)

    def level(run: Run) -> float | None:
        share = relative[run]
        return 100 * share if against and share is not None else height(run)

    groups: dict[Key, list[Run]] = {}
    for run in runs:
        groups.setdefault(curve.key_of(run), []).append(run)
    lines: dict[Key, list[Point]] = {}
    for key in sorted(groups):
        found = points(groups[key], curve.of, level, curve.of)
        if len(found) > 1:
            lines[key] = found
    if not lines:
        return None
    series = make_series(everything or runs, curve.key_of, curve.word)
    first = rows[0].run
    figure, (panel,) = draw_figure(first.dataset, 1, entries(series[key] for key in lines))
    draw_lines(panel, lines, series)
    panel.set_xlabel(curve.label)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    name = first.primary_metric if first.unit else f"{first.primary_metric} (points)"
    panel.set_ylabel(literal(f"{first.primary_metric}, of unpruned" if against else name))
    if against:
        panel.axhline(100, color="#000000", linewidth=0.8)
    percent(panel, x=curve.percent, y=against or bool(first.unit))
    return figure
