"""The plots of a report: scores against costs, over ratios and over layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ivcp.report.comparison import Entry
from ivcp.report.figures import (
    BLACK,
    COARSE_DPI,
    DPI,
    UNPRUNED_LINE,
    Key,
    Point,
    by_layers,
    by_ratio,
    draw_figure,
    draw_lines,
    legend,
    literal,
    make_series,
    percent,
    stack,
    to_paper,
    to_png,
)
from ivcp.report.page import PageImage
from ivcp.report.positions import plot_positions
from ivcp.results.load import were_paired

Measure: TypeAlias = Callable[[Entry], float | None]
Ends: TypeAlias = Callable[[Entry], tuple[float, float] | None]
FARTHEST = 1e12  # from 0, of numbers that are drawn
MOST_RUNS = 500
"""Runs of a report with fine figures, PDF and SVG, which take a second a figure."""
LONGEST_NAME = 60  # characters of a file's name, without its kind


@dataclass(frozen=True)
class Axis:
    """A horizontal axis.

    Attributes:
        label: What it shows.
        measure: Where a run is on it; None if that is unknown.
        percent: Whether it is in percent.
    """

    label: str
    measure: Measure
    percent: bool = False


def scaled(value: float | None, factor: float = 1.0) -> float | None:
    """A number times a factor; None for one that no plot has room for."""
    return None if value is None or abs(factor * value) > FARTHEST else factor * value


def height(entry: Entry) -> float | None:
    """The score as plots show it: in percent, or points."""
    return scaled(entry.metric.value, 100 if entry.metric.unit else 1)


def height_ends(entry: Entry) -> tuple[float, float] | None:
    """The interval of the difference from the unpruned run, around the score."""
    base = entry.base.metric.value if entry.base else None
    low, high = entry.paired.difference.low, entry.paired.difference.high
    if base is None or low is None or high is None:
        return None
    return _both(base + low, base + high, 100 if entry.metric.unit else 1)


def relative_ends(entry: Entry) -> tuple[float, float] | None:
    """The interval of the score in percent of the unpruned one."""
    low, high = entry.paired.relative.low, entry.paired.relative.high
    return None if low is None or high is None else _both(low, high, 100)


def _both(low: float, high: float, factor: float) -> tuple[float, float] | None:
    ends = scaled(low, factor), scaled(high, factor)
    return None if ends[0] is None or ends[1] is None else (ends[0], ends[1])


def ratio(entry: Entry) -> float | None:
    """The keep ratio of the pruner in percent; of another budget, what was kept."""
    return scaled(entry.ratio if entry.budget is None else entry.tokens.keep_ratio, 100)


def _layer(entry: Entry) -> float | None:
    return float(entry.layers) if entry.layers.isdecimal() else None


def _prefill_ms(entry: Entry) -> float | None:
    prefill = entry.efficiency.language_prefill_ms.median
    overhead = entry.efficiency.pruning_overhead_ms.median
    return None if prefill is None else scaled(prefill + (overhead or 0.0))


COSTS = (
    Axis(
        "visual tokens kept at the end",
        lambda entry: scaled(entry.tokens.keep_ratio, 100),
        percent=True,
    ),
    Axis(
        "prefill FLOPs, of unpruned",
        lambda entry: scaled(entry.efficiency.prefill_flops_ratio, 100),
        percent=True,
    ),
    Axis("KV cache, MB a sample", lambda entry: scaled(entry.efficiency.kv_cache_bytes, 1e-6)),
    Axis("prefill and overhead, ms (median)", _prefill_ms),
)
TIME = COSTS[-1]
RATIO = Axis("keep ratio of the pruner", ratio, percent=True)
LAYER = Axis("layer before which tokens are pruned", _layer)


def draw_plots(
    entries: Sequence[Entry],
) -> tuple[list[PageImage], dict[str, bytes], list[str]]:
    """Costs, ratios and layers of each dataset and primary metric, and positions of IVC tokens.

    Returns:
        The plots; files by name: a PNG file of each kind, with its plots below each other, and each
        plot alone as PNG, PDF and SVG; and one sentence for each kind of thing that was left out.
    """
    blocks: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        metric = entry.metric
        blocks.setdefault((entry.dataset, metric.name, metric.unit), []).append(entry)
    kinds: dict[str, list[PageImage]] = {"pareto": [], "ratio": [], "layer": [], "positions": []}
    problems: list[str] = []
    if not (fine := len(entries) <= MOST_RUNS):
        problems.append(
            f"Figures of more than {MOST_RUNS} runs are coarse PNG files; choose runs with --where "
            "for fine ones, PDF and SVG."
        )
    alone: dict[str, bytes] = {}

    def keep(kind: str, name: str, caption: str, figure: Figure) -> None:
        image = PageImage(caption, to_png(figure, DPI if fine else COARSE_DPI))
        kinds[kind].append(image)
        path = _free_name(f"figures/{kind}-{slug(name)}", alone)
        alone[f"{path}.png"] = image.data
        if fine:
            alone.update((f"{path}.{suffix}", data) for suffix, data in to_paper(figure).items())

    for (dataset, name, _), block in blocks.items():
        timed = times_compare(block)
        figures = {
            ("pareto", "against costs"): draw_pareto(block, entries, timed),
            ("ratio", "over the ratio"): draw_curve(block, RATIO, by_layers, entries),
            ("layer", "over the layer"): draw_curve(block, LAYER, by_ratio, entries),
        }
        for (kind, what), figure in figures.items():
            if figure:
                keep(kind, dataset, f"{dataset}: {name} {what}", figure)
        if not timed:
            problems.append(
                f"{dataset}: no panel of times, since the runs are not of one sweep, machine and "
                "trainer."
            )
        layers = {entry.layers for entry in block}
        if several := sorted(each for each in layers if "+" in each):
            problems.append(
                f"{dataset}: runs that prune at several layers ({', '.join(several)}) are in no "
                "curve over layers."
            )
        if after := sorted(each for each in layers if "after" in each):
            problems.append(
                f"{dataset}: runs that prune before layer 0 after a first pass "
                f"({', '.join(after)}) are in no curve over layers."
            )
    positions, left_out = plot_positions(entries)
    for name, caption, figure in positions:
        keep("positions", name, caption, figure)
    problems += left_out
    files = {}
    for kind, plots in kinds.items():
        if plots:
            files[f"{kind}.png"], missing = stack([plot.data for plot in plots])
            if missing:
                problems.append(f"{kind}.png has no room for {missing} plots; the page has them.")
    return [plot for plots in kinds.values() for plot in plots], files | alone, problems


def times_compare(entries: Sequence[Entry]) -> bool:
    """Whether the times of all runs of each model were measured under one roof."""
    of_model: dict[str, Entry] = {}
    return all(
        were_paired(of_model.setdefault(entry.info.model, entry).run, entry.run)
        for entry in entries
    )


def slug(text: str) -> str:
    r"""A name of a file that every system and LaTeX take.

    >>> slug("refcoco_testA"), slug("../a b\\n")
    ('refcoco_testA', 'a-b-n')
    """
    return re.sub(r"[^a-zA-Z0-9_]+", "-", text)[:LONGEST_NAME].strip("-") or "figure"


def _free_name(path: str, taken: Collection[str]) -> str:
    """The path, or with a number behind it where it is taken."""
    names = (path, *(f"{path}-{number}" for number in range(2, len(taken) + 3)))
    return next(name for name in names if f"{name}.png" not in taken)


def draw_pareto(
    entries: Sequence[Entry], everything: Sequence[Entry] = (), timed: bool = True
) -> Figure:
    """One panel a cost, score upwards; times only where they compare.

    Unpruned runs are dashed horizontal lines, with a star where the axis is not in percent of them.
    The stroke of a point is the interval of its difference from the unpruned run.

    Args:
        entries: Runs of one dataset and primary metric.
        everything: All runs of the report, for looks that agree; `entries` if it is empty.
        timed: Whether times compare.
    """
    lines = _lines(entries, by_layers)
    series = make_series(everything or entries)
    unpruned = [entry for entry in entries if entry.info.unpruned]
    costs = COSTS if timed else tuple(cost for cost in COSTS if cost is not TIME)
    drawn = {
        cost: {
            key: points(line, cost.measure, height, ratio, height_ends)
            for key, line in lines.items()
        }
        for cost in costs
    }
    marked = [point for line in drawn[costs[0]].values() for point in line]
    handles = legend((series[key] for key in lines), bool(unpruned), marked)
    figure, panels = draw_figure(_title(entries), len(costs), handles)
    for panel, cost in zip(panels, costs, strict=True):
        for entry in unpruned:
            x, y = cost.measure(entry), height(entry)
            if y is not None:
                panel.axhline(y, color=BLACK, linestyle=UNPRUNED_LINE, linewidth=1.2)
                if x is not None and not cost.percent:
                    panel.plot([x], [y], color=BLACK, marker="*", markersize=10)
        draw_lines(panel, drawn[cost], series)
        panel.set_xlabel(cost.label)
        percent(panel, x=cost.percent, y=bool(entries[0].metric.unit))
    for panel in panels[:: 2 if len(costs) == 4 else len(costs)]:
        panel.set_ylabel(_score_label(entries[0]))
    return figure


def draw_curve(
    entries: Sequence[Entry],
    axis: Axis,
    key_of: Callable[[Entry], Key],
    everything: Sequence[Entry] = (),
) -> Figure | None:
    """Score over a setting; None if no method has two values of it.

    The score is in percent of the unpruned one where every run has one, else as it is.

    Args:
        entries: Runs of one dataset and primary metric.
        axis: The setting.
        key_of: The line of a run, by another setting.
        everything: As in `draw_pareto`.
    """
    lines = _lines(entries, key_of)
    relative = all(entry.relative is not None for line in lines.values() for entry in line)
    level: Measure = (lambda entry: scaled(entry.relative, 100)) if relative else height
    ends = relative_ends if relative else height_ends
    drawn = {
        key: points(line, axis.measure, level, axis.measure, ends) for key, line in lines.items()
    }
    drawn = {key: line for key, line in drawn.items() if len(line) > 1}
    if not drawn:
        return None
    series = make_series(everything or entries, key_of)
    marked = [point for line in drawn.values() for point in line]
    handles = legend((series[key] for key in drawn), points=marked)
    figure, (panel,) = draw_figure(_title(entries), 1, handles)
    draw_lines(panel, drawn, series)
    panel.set_xlabel(axis.label)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylabel(_score_label(entries[0]))
    if relative:
        panel.set_ylabel(literal(f"{entries[0].metric.name}, of unpruned"))
        panel.axhline(100, color=BLACK, linewidth=0.8)
    percent(panel, x=axis.percent, y=relative or bool(entries[0].metric.unit))
    return figure


def points(
    entries: Sequence[Entry], x: Measure, y: Measure, together: Measure, ends: Ends | None = None
) -> list[Point]:
    """The points of a line: each the mean of runs of which x and y are known.

    Args:
        entries: The runs of a line.
        x: Horizontal.
        y: Vertical.
        together: Runs of which this is equal are one point, such as several seeds of one ratio;
            points are in its order.
        ends: The interval of a run, which counts where a point is one run.
    """
    groups: dict[float, list[tuple[float, float, Entry]]] = {}
    for entry in entries:
        x_value, y_value = x(entry), y(entry)
        if x_value is not None and y_value is not None:
            groups.setdefault(together(entry) or 0.0, []).append((x_value, y_value, entry))
    line = []
    for _, runs in sorted(groups.items(), key=lambda group: group[0]):
        x_values, y_values, alike = zip(*runs, strict=True)
        interval = ends(alike[0]) if ends and len(runs) == 1 else None
        low, high = interval or (min(y_values), max(y_values))
        line.append(Point(fmean(x_values), fmean(y_values), low, high, len(runs) > 1))
    return line


def _lines(entries: Sequence[Entry], key_of: Callable[[Entry], Key]) -> dict[Key, list[Entry]]:
    """The runs of each line."""
    lines: dict[Key, list[Entry]] = {}
    for entry in sorted(entries, key=key_of):
        if not entry.info.unpruned:
            lines.setdefault(key_of(entry), []).append(entry)
    return lines


def _title(entries: Sequence[Entry]) -> str:
    models = {entry.info.model for entry in entries}
    return " · ".join((entries[0].dataset, *(models if len(models) == 1 else ())))


def _score_label(entry: Entry) -> str:
    points = "" if entry.metric.unit else " (points)"
    return literal(f"{entry.metric.name}{points}")
