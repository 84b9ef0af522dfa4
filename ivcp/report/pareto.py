"""Accuracy against what is left: visual tokens, KV cache, prefill FLOPs and prefill time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ivcp.report.figures import UNPRUNED_LINE, draw_figure, draw_lines, entries, literal, percent
from ivcp.report.runs import Run
from ivcp.report.series import Key, Measure, Series, by_layer, height, make_series, points


@dataclass(frozen=True)
class Cost:
    """One cost of a run.

    Attributes:
        label: What it is, for the axis.
        of: Its value.
        scale: What turns it into what the axis shows.
        share: Whether that is percent of the unpruned cost; else the unpruned run has a place.
    """

    label: str
    of: Measure
    scale: float = 100
    share: bool = True

    def __call__(self, run: Run) -> float | None:
        """The place of a run on the axis."""
        value = self.of(run)
        return None if value is None else self.scale * value


def prefill_ms(run: Run) -> float | None:
    """Median time of the language model's prefill and of choosing tokens."""
    prefill, overhead = run.prefill_ms.median, run.pruning_overhead_ms.median
    return None if prefill is None else prefill + (overhead or 0.0)


COSTS = (
    Cost("visual tokens kept after the last layer", lambda run: run.keep_ratio),
    Cost("prefill FLOPs of the language model, against unpruned", lambda run: run.flops_ratio),
    Cost("KV cache, MB a sample", lambda run: run.kv_cache_bytes, 1e-6, share=False),
    Cost("prefill with pruning overhead, ms (median)", prefill_ms, 1.0, share=False),
)


def draw_pareto(runs: Sequence[Run], everything: Sequence[Run] = ()) -> Figure:
    """One panel a cost, score upwards.

    Unpruned runs are dashed horizontal lines, with a star where the axis has a place for them.

    Args:
        runs: Runs of one dataset and primary_metric.
        everything: All runs of the report, for looks that agree; `runs` if it is empty.
    """
    first = runs[0]
    own = {by_layer(run) for run in runs}
    series = {
        key: one for key, one in make_series(everything or runs).items() if key in own
    }  # this dataset's lines
    handles = entries(series.values(), any(run.unpruned for run in runs))
    figure, panels = draw_figure(first.dataset, len(COSTS), handles)
    for panel, cost in zip(panels, COSTS, strict=True):
        _draw_panel(panel, runs, series, cost)
        panel.set_xlabel(cost.label)
        percent(panel, x=cost.share, y=bool(first.unit))
    for panel in panels[::2]:
        panel.set_ylabel(
            literal(first.primary_metric if first.unit else f"{first.primary_metric} (points)")
        )
    return figure


def _draw_panel(panel: Axes, runs: Sequence[Run], series: dict[Key, Series], cost: Cost) -> None:
    for run in runs:
        if run.unpruned and (level := height(run)) is not None:
            panel.axhline(level, color="#000000", linestyle=UNPRUNED_LINE, linewidth=1.2)
            if not cost.share and (place := cost(run)) is not None:
                panel.plot([place], [level], color="#000000", marker="*", markersize=10)
    lines: dict[Key, list[Run]] = {}
    for run in runs:
        if not run.unpruned:
            lines.setdefault(by_layer(run), []).append(run)
    found = {key: points(lines[key], cost, height, lambda run: run.ratio) for key in sorted(lines)}
    draw_lines(panel, {key: line for key, line in found.items() if line}, series)
