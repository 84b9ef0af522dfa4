"""Plots of the studies, one panel a table, with colours and markers of the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.tables import UNPRUNED
from ivcp.report.figures import (
    BLACK,
    COLORS,
    CONTROLS,
    MARKERS,
    STYLE,
    UNPRUNED_LINE,
    WIDTH,
    Key,
    LineStyle,
    Point,
    Series,
    draw_figure,
    draw_lines,
    legend,
    percent,
)

Panels = Mapping[str, pd.DataFrame]
"""Rows of a study by the title of their panel, with the columns `x` and `line`, its legend."""


def split(table: pd.DataFrame, *columns: str) -> dict[str, pd.DataFrame]:
    """A panel for each value of columns, the last one `model`, with the unpruned model's rows."""
    is_unpruned = table["question"] == UNPRUNED
    panels = {}
    for title, block in table[~is_unpruned].groupby(list(columns)):
        same = table["model"].isin(block["model"]) & table["dataset"].isin(block["dataset"])
        name = " · ".join(map(str, reversed(title)))
        panels[name] = pd.concat([block, table[is_unpruned & same]])
    return panels


def curves(panels: Panels, label: str) -> Figure:
    """Scores over x, with the range of draws or the interval; the unpruned one goes across."""
    figure, places, looks = _panels(panels, "-")
    for panel, table in zip(places, panels.values(), strict=True):
        for value in table["value"][table["question"] == UNPRUNED]:
            panel.axhline(100 * value, color=BLACK, linewidth=0.8, linestyle=UNPRUNED_LINE)
        for line, rows in table[table["question"] != UNPRUNED].groupby("line"):
            other, y = rows["against_value"], rows["value"]
            low = rows["lowest"].fillna(other + rows["low"]).fillna(y).clip(0, 1)
            high = rows["highest"].fillna(other + rows["high"]).fillna(y).clip(0, 1)
            xs, ys = rows["x"].astype(float), (100 * y, 100 * low, 100 * high)
            points = [Point(*each) for each in zip(xs, *ys, strict=True)]
            draw_lines(panel, {_key(str(line)): sorted(points)}, looks)
        percent(panel, y=True)
    for panel in places[-2:] if len(places) > 3 else places:
        panel.set_xlabel(label)
    return figure


def dots(panels: Panels, names: Sequence[str], label: str) -> Figure:
    """Scores from left to right; `x` is a name, and the first name is on top."""
    figure, places, looks = _panels(panels, "")
    for panel, table in zip(places, panels.values(), strict=True):
        for line, rows in table.groupby("line"):
            heights = [names.index(name) for name in rows["x"]]
            values = zip(100 * rows["value"], heights, strict=True)
            draw_lines(panel, {_key(str(line)): [Point(x, y, y, y) for x, y in values]}, looks)
        panel.set_yticks(range(len(names)), names if panel is places[0] else [])
        panel.set_ylim(len(names) - 0.5, -0.5)
        panel.set_xlabel(label)
        percent(panel, x=True)
    height = 1.2 + 0.16 * len(names)
    figure.set_size_inches(WIDTH, height)
    sides = {"left": 0.15, "right": 0.97, "bottom": 0.8 / height, "top": 1 - 0.3 / height}
    figure.subplots_adjust(**sides, wspace=0.08)
    return figure


@rc_context(STYLE)  # type: ignore[arg-type]
def _panels(panels: Panels, style: LineStyle) -> tuple[Figure, list[Axes], dict[Key, Series]]:
    everything = pd.concat(panels.values())
    unpruned = everything["question"] == UNPRUNED
    looks: dict[Key, Series] = {}
    free = cycle(zip(COLORS * len(MARKERS), MARKERS * len(COLORS), strict=True))
    for line in dict.fromkeys(everything["line"][~unpruned]):
        color, marker = CONTROLS.get(line) or next(free)
        looks[_key(line)] = Series(line, line, "", color, marker, style, line in CONTROLS)
    figure, places = draw_figure("", len(panels), legend(looks.values(), bool(unpruned.any())))
    for panel, title in zip(places, panels, strict=True):
        panel.set_title(title, loc="left", fontweight="bold")
    return figure, places, looks


def _key(line: str) -> Key:
    return line, "", "", ""
