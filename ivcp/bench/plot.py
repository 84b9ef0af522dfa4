"""The plot of a benchmark: prefill time against FLOPs, and decoding, each with its limit."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ivcp.bench.result import BenchResult, Group, Measured
from ivcp.report.figures import (
    BLACK,
    COLORS,
    CONTROLS,
    GRAY,
    MARKERS,
    UNPRUNED_LINE,
    draw_figure,
    literal,
    to_png,
)
from ivcp.results.schema import Quartiles

WIDEST = 0.7
"""Part of the room of a group that its methods take."""
SMALL = 9  # points of what stands below groups
BAND = 0.05
"""How far from the limit the shaded band reaches."""


def plot_png(result: BenchResult) -> bytes:
    """The plot as a PNG file; empty if nothing was measured."""
    labels = list(
        dict.fromkeys(
            row.info.label
            for group in result.groups
            for row in group.methods[1:]
            if row.status == "ok" and row.prefill_ms.ratio.median is not None
        )
    )
    if not labels:
        return b""
    looks = _looks(labels)
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="", label=literal(label))
        for label, (color, marker) in looks.items()
    ]
    handles.append(Line2D([], [], color=BLACK, linestyle=UNPRUNED_LINE, label="unpruned"))
    handles.append(Line2D([], [], color=GRAY, label="limit: FLOPs, bytes"))
    models = ", ".join(dict.fromkeys(group.model for group in result.groups))
    device = result.run.device if result.run.device != "cpu" else "CPU"
    figure, (left, right) = draw_figure(f"{models} on {device}", 2, handles)
    _draw_prefill(left, result.groups, looks)
    _draw_decoding(right, result.groups, looks)
    return to_png(figure)


def _looks(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Color and marker of each method; controls are grey."""
    looks: dict[str, tuple[str, str]] = {}
    for label in labels:
        if (name := label.split()[0]) in CONTROLS:
            looks[label] = CONTROLS[name]
        else:
            number = len(looks)
            looks[label] = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
    return looks


def _draw_prefill(panel: Axes, groups: Sequence[Group], looks: dict[str, tuple[str, str]]) -> None:
    """Time over FLOPs, both against unpruned: on the line, all FLOPs saved are time saved."""
    lowest, highest = 1.0, 1.0
    for group in groups:
        for row in group.methods[1:]:
            spread, x = row.prefill_ms.ratio, row.flops_ratio
            if x is None or spread.median is None or spread.q1 is None or spread.q3 is None:
                continue
            _draw_point(panel, x, spread, looks[row.info.label])
            lowest, highest = min(lowest, x, spread.q1), max(highest, spread.q3)
    low, high = max(0.0, lowest - 0.06), highest + 0.04
    ends = [0.0, 1.1]
    panel.plot(ends, ends, color=GRAY, linewidth=1.2, zorder=1)
    band = [(1 - BAND) * end for end in ends], [(1 + BAND) * end for end in ends]
    panel.fill_between(ends, *band, color="#EDEDED", zorder=0, linewidth=0)
    panel.axhline(1, color=BLACK, linestyle=UNPRUNED_LINE, linewidth=1)
    panel.set(xlim=(low, 1.04), ylim=(low, high))
    panel.set(xlabel="prefill FLOPs, of unpruned", ylabel="prefill time, of unpruned")


def _draw_decoding(panel: Axes, groups: Sequence[Group], looks: dict[str, tuple[str, str]]) -> None:
    """Milliseconds a token of each group, with those unpruned, and what bytes allow."""
    step = WIDEST / max(1, len(looks))
    order = {label: number for number, label in enumerate(looks)}
    for number, group in enumerate(groups):
        plain = group.methods[0].decode_ms_per_token.value.median
        if plain is not None:
            sides = number - WIDEST / 2 - 0.05, number + WIDEST / 2 + 0.05
            panel.hlines(plain, *sides, color=BLACK, linestyle=UNPRUNED_LINE, linewidth=1)
        for row in group.methods[1:]:
            spread = row.decode_ms_per_token.value
            if spread.median is None or row.info.label not in looks:
                continue
            x = number + (order[row.info.label] - (len(looks) - 1) / 2) * step
            _draw_point(panel, x, spread, looks[row.info.label])
            _draw_limit(panel, row, plain, x, step)
    panel.set_xticks(range(len(groups)), _group_names(groups), fontsize=SMALL)
    panel.grid(visible=False, axis="x")
    panel.set_ylim(bottom=0)
    several = len({group.model for group in groups}) > 1
    xlabel = "" if several else "visual tokens of the prompt, batch size"
    panel.set(xlabel=xlabel, ylabel="decoding, ms a token")


def _group_names(groups: Sequence[Group]) -> list[str]:
    """Tokens and batch size of each group; of several models, the name is below their middle."""
    names = [f"{group.visual_tokens:,}\nx {group.batch_size}" for group in groups]
    models = [group.model for group in groups]
    if len(set(models)) > 1:
        for model in set(models):
            numbers = [number for number, name in enumerate(models) if name == model]
            names[numbers[len(numbers) // 2]] += f"\n{literal(model)}"
    return names


def _draw_point(panel: Axes, x: float, spread: Quartiles, look: tuple[str, str]) -> None:
    """A median, with a stroke from quartile to quartile."""
    if spread.median is None or spread.q1 is None or spread.q3 is None:
        return
    color, marker = look
    panel.vlines(x, spread.q1, spread.q3, color=color, linewidth=1)
    panel.plot(
        x, spread.median, color=color, marker=marker, linestyle="", markersize=7,
        markeredgewidth=0.8, markeredgecolor="white",
    )  # fmt: skip


def _draw_limit(panel: Axes, row: Measured, plain: float | None, x: float, step: float) -> None:
    if plain is not None and row.decode_bytes_ratio is not None:
        sides = x - 0.4 * step, x + 0.4 * step
        panel.hlines(row.decode_bytes_ratio * plain, *sides, color=GRAY, linewidth=1.2)
