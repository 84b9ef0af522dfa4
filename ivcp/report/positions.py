"""Mean cosine and mean sine of the rotary angles over an image, and which tokens were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout
from ivcp.core.rope import rotation_scores
from ivcp.report.figures import draw_figure
from ivcp.report.predictions import kept_reasons, layouts, read_samples
from ivcp.report.runs import Run
from ivcp.visualize.panel import reason_color

IVC = "ivc"
CURVES = (("mean cosine V", "#0072B2"), ("mean sine U", "#009E73"))
DROPPED = "#D9D9D9"
MOST = 4
"""Figures of a report."""


@dataclass(frozen=True)
class Chosen:
    """The visual tokens of the first image of a run's first sample that holds IVC tokens.

    Attributes:
        run: The run.
        sample: Id of the sample.
        layout: The image's tokens.
        reasons: Why each kept token was kept, by its index into the prompt.
    """

    run: Run
    sample: str
    layout: ImageLayout
    reasons: Mapping[int, str]


def find_chosen(runs: Sequence[Run]) -> tuple[list[Chosen], list[str]]:
    """The IVC tokens of the first run of each model, dataset and pruner that has some.

    Only the first line of predictions is looked at.

    Returns:
        At most `MOST`, and a sentence for each kind of run that was left out.
    """
    found: dict[tuple[str, str, str], Chosen] = {}
    unread = 0
    for run in runs:
        kind = run.model, run.dataset, run.pruner
        if run.unpruned or kind in found:
            continue
        try:
            told = next(read_samples(run), None)
            images, reasons = (layouts(told), kept_reasons(told)) if told else ([], {})
        except UserError:
            unread += 1
            continue
        if told and images and IVC in reasons.values():
            found[kind] = Chosen(run, str(told["id"]), images[0], reasons)
    left_out = []
    if unread:
        left_out.append(f"Positions: the predictions of {unread} runs could not be read.")
    if len(found) > MOST:
        left_out.append(f"Positions are drawn of the first {MOST} of {len(found)} methods.")
    return list(found.values())[:MOST], left_out


def rotary_scores(chosen: Chosen) -> tuple[Tensor, Tensor] | None:
    """V(m) and U(m) of each visual token, (V,); None where the record does not hold what it takes.

    That is `rotary` of the run: `inverse_frequencies`, and `axes`: 1 for RoPE, 3 for M-RoPE. With
    three axes, positions are known of the first image of a prompt, if it is one grid.
    """
    told: Any = chosen.run.record.get("rotary")
    try:
        frequencies, axes = torch.tensor(told["inverse_frequencies"]), told["axes"]
    except (KeyError, TypeError, ValueError):
        return None
    tokens, grid = chosen.layout.tokens, chosen.layout.grids[0]
    if axes == 1:
        return rotation_scores(tokens[None], frequencies)
    if axes != 3 or len(chosen.layout.grids) > 1:
        return None
    places = torch.arange(grid.length)
    positions = [torch.zeros_like(places), places // grid.columns, places % grid.columns]
    return rotation_scores(grid.start + torch.stack(positions), frequencies)


def draw_positions(chosen: Chosen) -> Figure:
    """V(m) and U(m) over the image's tokens in prompt order, above a strip of their reasons.

    Without rotary frequencies the strip stands alone.
    """
    tokens = chosen.layout.tokens.tolist()
    scores = rotary_scores(chosen)
    names = sorted({chosen.reasons[t] for t in tokens if t in chosen.reasons})
    handles = [Line2D([], [], color=color, label=label) for label, color in CURVES if scores]
    handles += [
        Line2D([], [], color=_color(name), marker="s", linestyle="", label=name) for name in names
    ]
    handles.append(Line2D([], [], color=DROPPED, marker="s", linestyle="", label="dropped"))
    run = chosen.run
    ratio = "" if run.ratio is None else f" at {run.ratio:g}"
    title = f"{run.pruner}{ratio} · {run.model} · first image of sample {chosen.sample}"
    figure, (panel,) = draw_figure(title, 1, handles)
    panel.set_xlabel("prompt index of the visual token")
    panel.set_xlim(tokens[0] - 1, tokens[-1] + 1)
    panel.grid(visible=False)
    if scores is None:
        panel.set_yticks([])
        _draw_strip(panel, tokens, chosen.reasons, (0.0, 1.0))
        return figure
    for values, (_, color) in zip(scores, CURVES, strict=True):
        panel.plot(tokens, values.tolist(), color=color, linewidth=1)
        marked = [place for place, token in enumerate(tokens) if chosen.reasons.get(token) == IVC]
        panel.scatter(
            [tokens[place] for place in marked],
            values[marked].tolist(),
            color=_color("ivc"),
            edgecolors=color,
            linewidths=0.6,
            s=16,
            zorder=3,
        )
    low, high = min(v.min().item() for v in scores), max(v.max().item() for v in scores)
    room = (high - low) or 1.0
    _draw_strip(panel, tokens, chosen.reasons, (low - 0.2 * room, low - 0.08 * room))
    panel.set_ylim(low - 0.22 * room, high + 0.06 * room)
    panel.set_ylabel("mean over frequencies")
    return figure


def _draw_strip(
    panel: Axes, tokens: Sequence[int], reasons: Mapping[int, str], span: tuple[float, float]
) -> None:
    """One stroke a token, in the colour of its reason."""
    groups: dict[str, list[int]] = {}
    for token in tokens:
        color = _color(reasons[token]) if token in reasons else DROPPED
        groups.setdefault(color, []).append(token)
    for color, places in groups.items():
        panel.broken_barh(
            [(place - 0.5, 1) for place in places],
            (span[0], span[1] - span[0]),
            color=color,
            linewidth=0,
        )


def _color(reason: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*reason_color(reason))
