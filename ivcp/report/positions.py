"""Mean cosine and mean sine of the rotary angles over an image, and which tokens were kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ivcp.core.errors import UserError
from ivcp.report.comparison import Entry
from ivcp.report.figures import draw_figure, literal
from ivcp.report.kept_tokens import drawable_images, kept_reasons
from ivcp.report.rotary_scores import rotary_scores
from ivcp.results.prediction import Prediction
from ivcp.visualize.panel import reason_color

IVC = "ivc"
CURVES = (("mean cosine V", "#0072B2"), ("mean sine U", "#009E73"))
DROPPED = "#D9D9D9"
MOST = 4
"""Figures of a report."""


def plot_positions(entries: Sequence[Entry]) -> tuple[list[tuple[str, str, Figure]], list[str]]:
    """Plots of the IVC tokens of the first run of each model, dataset and pruner that has some.

    Returns:
        At most `MOST`, each with a name and a caption, and a sentence for each kind of run that was
        left out.
    """
    samples, problems = find_samples(entries)
    plots = []
    for entry, sample in samples:
        info, what = entry.info, "V(m) and U(m) at each visual token, IVC tokens marked"
        if rotary_scores(entry, sample) is None:
            what = "kept tokens by role; the run's record holds no rotary frequencies for V and U"
        caption = f"{entry.method} on {info.dataset} ({info.model}): {what}"
        name = f"{info.pruner}-{info.dataset}"
        plots.append((name, caption, draw_positions(entry, sample)))
    return plots, problems


def find_samples(entries: Sequence[Entry]) -> tuple[list[tuple[Entry, Prediction]], list[str]]:
    """The runs of `plot_positions`, each with the first line of its predictions."""
    samples: dict[tuple[str, str, str], tuple[Entry, Prediction]] = {}
    unread = 0
    for entry in entries:
        kind = entry.info.model, entry.dataset, entry.info.pruner
        if entry.info.unpruned or kind in samples:
            continue
        try:
            for sample in islice(entry.run.predictions(), 1):
                if drawable_images(sample) and IVC in kept_reasons(sample).values():
                    samples[kind] = entry, sample
        except UserError:
            unread += 1
    problems = []
    if unread:
        problems.append(f"Positions: the predictions of {unread} runs could not be read.")
    if len(samples) > MOST:
        problems.append(f"Positions are drawn of the first {MOST} of {len(samples)} methods.")
    return list(samples.values())[:MOST], problems


def draw_positions(entry: Entry, sample: Prediction) -> Figure:
    """V(m) and U(m) over the tokens of a sample's first image, above a strip of their reasons.

    Without rotary frequencies the strip stands alone.
    """
    tokens, reasons = sample.images[0].tokens.tolist(), kept_reasons(sample)
    scores = rotary_scores(entry, sample)
    handles = [Line2D([], [], color=color, label=label) for label, color in CURVES if scores]
    names = {name: _color(name) for name in sorted({reasons[t] for t in tokens if t in reasons})}
    handles += [
        Line2D([], [], color=color, marker="s", linestyle="", label=literal(name))
        for name, color in {**names, "dropped": DROPPED}.items()
    ]
    method = entry.method if entry.ratio is None else f"{entry.method} at {entry.ratio:g}"
    title = f"{method} · {entry.info.model} · first image of sample {sample.id}"
    figure, (panel,) = draw_figure(title, 1, handles)
    panel.set_xlabel("prompt index of the visual token")
    panel.set_xlim(tokens[0] - 1, tokens[-1] + 1)
    panel.grid(visible=False)
    if scores is None:
        panel.set_yticks([])
        _draw_strip(panel, tokens, reasons, (0.0, 1.0))
        return figure
    for values, (_, color) in zip(scores, CURVES, strict=True):
        panel.plot(tokens, values.tolist(), color=color, linewidth=1)
        marked = [index for index, token in enumerate(tokens) if reasons.get(token) == IVC]
        panel.scatter(
            [tokens[index] for index in marked],
            values[marked].tolist(),
            color=_color(IVC),
            edgecolors=color,
            linewidths=0.6,
            s=16,
            zorder=3,
        )
    low, high = min(v.min().item() for v in scores), max(v.max().item() for v in scores)
    room = (high - low) or 1.0
    _draw_strip(panel, tokens, reasons, (low - 0.2 * room, low - 0.08 * room))
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
    for color, indices in groups.items():
        panel.broken_barh(
            [(index - 0.5, 1) for index in indices],
            (span[0], span[1] - span[0]),
            color=color,
            linewidth=0,
        )


def _color(reason: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*reason_color(reason))
