"""Accuracy against what is left: visual tokens kept and prefill FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal, TypeAlias

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from ivcp.report.runs import Run, Unit

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers tell apart; its yellow is too pale here."""
MARKERS = "osD^vPX*<>hpd"
CONTROLS = {"random": ("#9A9A9A", "x"), "uniform": ("#5F5F5F", "+")}
"""Pruners that look at nothing; drawn in grey."""
LineStyle: TypeAlias = Literal["-", "--", ":", "-."]
LINES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")
WIDTH, SYMBOL, LETTER = 9.5, 0.9, 0.075
"""Inches: of the figure, of a symbol in the legend with its gaps, of a letter."""
PANELS: tuple[tuple[str, Callable[[Run], float | None]], ...] = (
    ("visual tokens kept after the last layer", lambda run: run.keep_ratio),
    ("prefill FLOPs of the language model, against unpruned", lambda run: run.flops_ratio),
)


@dataclass(frozen=True)
class Series:
    """One line of the plot.

    Attributes:
        label: Name in the legend.
        color: Colour of line and marker.
        marker: Shape of the marker.
        line: Style of the line; the layers of one pruner differ in it.
    """

    label: str
    color: str
    marker: str
    line: LineStyle


def make_series(runs: Sequence[Run]) -> dict[tuple[str, str, str], Series]:
    """The line of each (pruner, layer, model) that prunes.

    The same pruner has the same colour and marker everywhere. Layer and model are in the label
    where the runs differ in them.
    """
    keys = sorted({(run.pruner, run.layer, run.model) for run in runs if not run.unpruned})
    pruners = sorted({pruner for pruner, _, _ in keys} - CONTROLS.keys())
    several_layers = len({layer for _, layer, _ in keys}) > 1
    several_models = len({run.model for run in runs}) > 1
    series = {}
    for key in keys:
        pruner, layer, model = key
        variants = [other for other in keys if other[0] == pruner]
        number = pruners.index(pruner) if pruner in pruners else 0
        color, marker = CONTROLS.get(
            pruner, (COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)])
        )
        label = f"{pruner} @ layer {layer}" if several_layers and layer else pruner
        label = f"{label} ({model})" if several_models else label
        series[key] = Series(label, color, marker, LINES[variants.index(key) % len(LINES)])
    return series


def points(runs: Sequence[Run], x: Callable[[Run], float | None]) -> list[tuple[float, ...]]:
    """Ascending (x, mean, lowest, highest); x in percent, and the rest, unless they are points.

    Runs of one ratio, as with several seeds, are one point.
    """
    by_ratio: dict[float | None, list[tuple[float, float]]] = {}
    for run in runs:
        place = x(run)
        if place is not None and run.value is not None:
            by_ratio.setdefault(run.ratio, []).append((100 * place, _height(run.value, run.unit)))
    found = []
    for pairs in by_ratio.values():
        values = [value for _, value in pairs]
        found.append((fmean(p for p, _ in pairs), fmean(values), min(values), max(values)))
    return sorted(found)


def _height(value: float, unit: Unit) -> float:
    return 100 * value if unit else value


def draw_pareto(runs: Sequence[Run]) -> Figure:
    """One row of panels a dataset, score upwards, cost to the right.

    Unpruned runs are dashed horizontal lines.
    """
    groups = sorted({(run.dataset, run.headline, run.unit) for run in runs})
    series = make_series(runs)
    figure = Figure(figsize=(WIDTH, 3.6 * len(groups) + 1.1), layout="constrained", dpi=160)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(groups), len(PANELS), squeeze=False, sharey="row")
    for (dataset, headline, unit), axes in zip(groups, grid, strict=True):
        group = dataset, headline, unit
        shown = [run for run in runs if (run.dataset, run.headline, run.unit) == group]
        for panel, (label, x) in zip(axes, PANELS, strict=True):
            _draw_panel(panel, shown, series, x)
            panel.set_xlabel(label)
            if unit:
                panel.yaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes[0].set_ylabel(headline if unit else f"{headline} (points)")
        axes[0].set_title(dataset, loc="left", fontweight="bold")
    handles: list[Line2D] = [
        Line2D([], [], color=s.color, marker=s.marker, linestyle=s.line, label=s.label)
        for s in series.values()
    ]
    if any(run.unpruned for run in runs):
        handles.append(Line2D([], [], color="#000000", linestyle=(0, (6, 3)), label="unpruned"))
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(5, max(1, int(WIDTH / (SYMBOL + LETTER * longest)))),
        frameon=False,
        handlelength=3,
    )
    return figure


def _draw_panel(
    panel: Axes,
    runs: Sequence[Run],
    series: dict[tuple[str, str, str], Series],
    x: Callable[[Run], float | None],
) -> None:
    for run in runs:
        if run.unpruned and run.value is not None:
            height = _height(run.value, run.unit)
            panel.axhline(height, color="#000000", linestyle=(0, (6, 3)), linewidth=1.2)
    for key, style in series.items():
        own = [run for run in runs if (run.pruner, run.layer, run.model) == key]
        if not (found := points(own, x)):
            continue
        places, means, lows, highs = zip(*found, strict=True)
        control = key[0] in CONTROLS
        panel.plot(
            places,
            means,
            color=style.color,
            marker=style.marker,
            linestyle=style.line,
            linewidth=1.4 if control else 1.8,
            markersize=7,
            markeredgewidth=1.8 if control else 0.8,
            markeredgecolor=style.color if control else "white",
            zorder=2 if control else 3,
        )
        if lows != highs:
            panel.vlines(places, lows, highs, color=style.color, linewidth=1)
    panel.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    panel.grid(color="#E4E4E4", linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.margins(x=0.06, y=0.08)


def save_pareto(runs: Sequence[Run], path: Path) -> None:
    """Write the plot as PNG.

    Raises:
        OSError: The file cannot be written.
    """
    with matplotlib.rc_context({"font.size": 10}):
        draw_pareto(runs).savefig(path)
