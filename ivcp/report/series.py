"""Which runs make up a line of a plot, and what it looks like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from ivcp.report.runs import Run

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers tell apart; its yellow is too pale here."""
MARKERS = "osD^vPX*<>hpd"
CONTROLS = {"random": ("#9A9A9A", "x"), "uniform": ("#5F5F5F", "+")}
"""Pruners that look at nothing; drawn in grey."""
LineStyle: TypeAlias = Literal["-", "--", ":", "-.", ""] | tuple[int, tuple[int, ...]]
LINES: tuple[LineStyle, ...] = (
    "-", "--", ":", "-.", (0, (9, 2)), (0, (1, 4)), (0, (6, 2, 1, 2, 1, 2)), (0, (3, 5)),
    (0, (9, 2, 3, 2)), (0, (3, 2, 1, 2, 1, 2, 1, 2)), (0, (2, 2)), (0, (6, 5)),
)  # fmt: skip
Key: TypeAlias = tuple[str, str, str, str]
"""Pruner, variant, layer (or ratio) and model of a line."""
Measure: TypeAlias = Callable[[Run], float | None]
Point: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        label: Name in the legend.
        method: Pruner and variant alone.
        place: Layer (or ratio) and model alone; "" if they are not told.
        color: Colour of line and marker; methods differ in both.
        marker: Shape of the marker.
        line: Style of the line; places differ in it, and the most frequent is solid.
        control: Whether it is a control, which stands behind the others.
    """

    label: str
    method: str
    place: str
    color: str
    marker: str
    line: LineStyle
    control: bool


def by_layer(run: Run) -> Key:
    """The line of a run where layers are apart."""
    return run.pruner, run.variant, run.layer, run.model


def by_ratio(run: Run) -> Key:
    """The line of a run where ratios are apart."""
    return run.pruner, run.variant, "" if run.ratio is None else f"{run.ratio:g}", run.model


def make_series(
    runs: Sequence[Run], key_of: Callable[[Run], Key] = by_layer, word: str = "@ layer"
) -> dict[Key, Series]:
    """Each line of the runs that prune.

    The same method has the same colour and marker everywhere, and a control is grey unless it has
    variants. Layer (or ratio) and model are in the label where the runs differ in them.

    Args:
        runs: All runs of the report, so that looks agree between plots.
        key_of: The line of a run.
        word: What stands before the layer (or ratio) in a label.
    """
    keys = sorted({key_of(run) for run in runs if not run.unpruned})
    methods = sorted({key[:2] for key in keys})
    variants = Counter(pruner for pruner, _ in methods)
    colored = [m for m in methods if m[0] not in CONTROLS or variants[m[0]] > 1]
    several_places = len({place for _, _, place, _ in keys}) > 1
    several_models = len({run.model for run in runs}) > 1
    counts = Counter(key[2:] for key in keys)
    styles = sorted(counts, key=lambda kind: (-counts[kind], kind))
    series = {}
    for key in keys:
        pruner, variant, place, model = key
        if key[:2] in colored:
            number = colored.index(key[:2])
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        else:
            color, marker = CONTROLS[pruner]
        parts = [f"{word} {place}"] if several_places and place else []
        parts += [f"({model})"] if several_models else []
        method = f"{pruner} {variant}".strip()
        series[key] = Series(
            label=" ".join([method, *parts]),
            method=method,
            place=" ".join(parts),
            color=color,
            marker=marker,
            line=LINES[styles.index(key[2:]) % len(LINES)],
            control=pruner in CONTROLS,
        )
    return series


def points(runs: Sequence[Run], x: Measure, y: Measure, together: Measure) -> list[Point]:
    """(x, mean of y, lowest, highest) of the runs of which both are known.

    Args:
        runs: The runs of a line.
        x: Place on the axis.
        y: Height.
        together: Runs of which this is equal are one point, as several seeds of one ratio; the
            points are in its order.
    """
    groups: dict[float, list[tuple[float, float]]] = {}
    for run in runs:
        place, height = x(run), y(run)
        if place is not None and height is not None:
            groups.setdefault(together(run) or 0.0, []).append((place, height))
    found = []
    for _, pairs in sorted(groups.items()):
        heights = [height for _, height in pairs]
        found.append((fmean(p for p, _ in pairs), fmean(heights), min(heights), max(heights)))
    return found


def height(run: Run) -> float | None:
    """The score as plots have it: in percent, or points."""
    return run.value if run.value is None or not run.unit else 100 * run.value
