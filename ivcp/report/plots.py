"""The plots of a report, and the PNG files that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ivcp.report.curves import CURVES, draw_curve
from ivcp.report.figures import stack, to_png
from ivcp.report.page import Plot
from ivcp.report.pareto import draw_pareto
from ivcp.report.rows import Row


@dataclass(frozen=True)
class Plots:
    """What was drawn.

    Attributes:
        plots: In the order of the page.
        files: PNG files by name, each with the plots of one kind below each other.
        problems: One sentence for each kind of thing that was left out.
    """

    plots: list[Plot]
    files: dict[str, bytes]
    problems: list[str]


def draw_plots(rows: Sequence[Row], positions: bool = True) -> Plots:
    """Costs, ratios and layers of each dataset and primary metric, and positions of IVC tokens.

    Args:
        rows: The runs.
        positions: Whether to look at the first line of each run's predictions.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.run.dataset, row.run.primary_metric, row.run.unit), []).append(row)
    runs = [row.run for row in rows]
    kinds: dict[str, list[Plot]] = {"pareto": [], "ratio": [], "layer": [], "positions": []}
    problems: list[str] = []
    for (dataset, primary_metric, _), group in groups.items():
        own = [row.run for row in group]
        pareto = to_png(draw_pareto(own, runs))
        kinds["pareto"].append(Plot(f"{dataset}: {primary_metric} against costs", pareto))
        for name, curve in zip(("ratio", "layer"), CURVES, strict=True):
            figure = draw_curve(group, curve, runs)
            if figure is not None:
                kinds[name].append(
                    Plot(f"{dataset}: {primary_metric} over the {name}", to_png(figure))
                )
        if several := sorted({run.layer for run in own if "+" in run.layer}):
            problems.append(
                f"{dataset}: runs that prune at several layers ({', '.join(several)}) are in no "
                "curve over layers."
            )
    if positions:
        kinds["positions"], left_out = _positions(rows)
        problems += left_out
    files = {}
    for name, plots in kinds.items():
        if plots:
            files[f"{name}.png"], missing = stack([plot.data for plot in plots])
            if missing:
                problems.append(f"{name}.png has no room for {missing} plots; the page has them.")
    return Plots([plot for plots in kinds.values() for plot in plots], files, problems)


def _positions(rows: Sequence[Row]) -> tuple[list[Plot], list[str]]:
    from ivcp.report.positions import draw_positions, find_chosen, rotary_scores  # needs torch

    chosen, problems = find_chosen([row.run for row in rows])
    plots = []
    for one in chosen:
        told = f"{one.run.pruner} on {one.run.dataset} ({one.run.model}): "
        if rotary_scores(one) is None:
            told += "kept tokens by role; the run's record holds no rotary frequencies for V and U"
        else:
            told += "V(m) and U(m) at each visual token, IVC tokens marked"
        plots.append(Plot(told, to_png(draw_positions(one))))
    return plots, problems
