"""Lines of plots: what they look like, and figures of equal panels above one legend."""

from __future__ import annotations

import io
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter
from PIL import Image

from ivcp.core.printable import printable

logging.getLogger("fontTools.subset").setLevel(logging.WARNING)  # 40 lines a font and PDF

if TYPE_CHECKING:  # it imports pandas, and a benchmark's plot does without
    from ivcp.report.comparison import Entry

WIDTH, HEIGHT, SYMBOL, LETTER = 7.0, 2.3, 0.6, 0.06
"""Inches: of the figure (two columns of a paper), of a panel with its labels, of a symbol in the
legend, of a letter."""
TOP, BOTTOM, LEFT, RIGHT, GAP, ENTRY = 0.3, 0.48, 0.6, 0.1, 0.5, 0.18
"""Inches: around the panels and between them, and of a line of the legend."""
STYLE = {
    "font.size": 8, "axes.titlesize": 9, "axes.labelsize": 8, "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "axes.linewidth": 0.6,
    "pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "ivcp",
}  # fmt: skip
"""Sizes in points, readable where the figure is as wide as the text; fonts that journals take, and
files that are the same for the same runs."""
FORMATS: dict[Format, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
"""Files for papers, and what is left out of them."""
MOST_LINES, MOST_ENTRIES, LONGEST = 24, 240, 80
"""Lines that have an entry each in the legend, entries at all, and characters of a label."""
DPI, COARSE_DPI = 180, 90
"""Pixels of an inch of PNG files, and of those of many runs."""
COMPRESSION = 2  # of PNG files: speed before size, for reports of many plots
TALLEST = 60_000  # pixels of a file with several plots

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers tell apart; its yellow is too pale here."""
MARKERS = "osD^vPX*<>hpd"
CONTROLS = {"random": ("#9A9A9A", "x"), "uniform": ("#5F5F5F", "+")}
"""Pruners that look at nothing; drawn in grey."""
BLACK, GRAY = "#000000", "#707070"
LineStyle: TypeAlias = Literal["-", "--", ":", "-.", ""] | tuple[int, tuple[int, ...]]
LINES: tuple[LineStyle, ...] = (
    "-", "--", ":", "-.", (0, (9, 2)), (0, (1, 4)), (0, (6, 2, 1, 2, 1, 2)), (0, (3, 5)),
    (0, (9, 2, 3, 2)), (0, (3, 2, 1, 2, 1, 2, 1, 2)), (0, (2, 2)), (0, (6, 5)),
)  # fmt: skip
UNPRUNED_LINE: LineStyle = (0, (6, 3))
STROKES = {False: "95 % interval", True: "range of repeats"}
"""What the stroke at a point is, by whether the point is the mean of several runs."""

Key: TypeAlias = tuple[str, str, str, str]
"""Pruner, variant, layers (or ratio) and model of a line."""
Format: TypeAlias = Literal["pdf", "svg"]


class Point(NamedTuple):
    """A point of a line.

    Attributes:
        x: Horizontal.
        y: Vertical.
        low: Where its stroke begins: of one run the interval, of several the lowest.
        high: Where it ends.
        repeats: Whether it is the mean of several runs.
    """

    x: float
    y: float
    low: float
    high: float
    repeats: bool = False


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        label: Name in the legend.
        method: Pruner and variant alone.
        setting: Layers (or ratio) and model alone; "" if the label has none of them.
        color: Colour of line and marker; methods differ in both.
        marker: Shape of the marker.
        line: Style of the line; settings differ in it, and the most frequent is solid.
        control: Whether it is a control, which stands behind the others.
    """

    label: str
    method: str
    setting: str
    color: str
    marker: str
    line: LineStyle
    control: bool


def by_layers(entry: Entry) -> Key:
    """The line of a run where each layer has its own."""
    layers = f"@ layer {entry.layers}" if entry.layers else ""
    return entry.info.pruner, entry.variant.settings, layers, entry.info.model


def by_ratio(entry: Entry) -> Key:
    """The line of a run where each ratio has its own."""
    ratio = "" if entry.ratio is None else f"at {entry.ratio:g}"
    return entry.info.pruner, entry.variant.settings, ratio, entry.info.model


def make_series(
    entries: Sequence[Entry], key_of: Callable[[Entry], Key] = by_layers
) -> dict[Key, Series]:
    """Each line of the runs that prune.

    The same method has the same colour and marker everywhere, and a control is grey unless it has
    variants. Layers (or ratio) and model are in the label where the runs differ in them.

    Args:
        entries: All runs of the report, so that looks agree between plots.
        key_of: The line of a run.
    """
    names = {key_of(entry): entry.method for entry in entries if not entry.info.unpruned}
    keys = sorted(names)
    methods = sorted({key[:2] for key in keys})
    variants = Counter(pruner for pruner, _ in methods)
    colored = [m for m in methods if m[0] not in CONTROLS or variants[m[0]] > 1]
    several_settings = len({setting for _, _, setting, _ in keys}) > 1
    several_models = len({entry.info.model for entry in entries}) > 1
    counts = Counter(key[2:] for key in keys)
    styles = sorted(counts, key=lambda kind: (-counts[kind], kind))
    series = {}
    for key in keys:
        pruner, variant, setting, model = key
        if key[:2] in colored:
            number = colored.index(key[:2])
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        else:
            color, marker = CONTROLS[pruner]
        parts = [setting] if several_settings and setting else []
        parts += [f"({model})"] if several_models else []
        method = f"{names[key]} {variant}".strip()
        series[key] = Series(
            label=" ".join([method, *parts]),
            method=method,
            setting=" ".join(parts),
            color=color,
            marker=marker,
            line=LINES[styles.index(key[2:]) % len(LINES)],
            control=pruner in CONTROLS,
        )
    return series


def legend(
    series: Iterable[Series], unpruned: bool = False, points: Iterable[Point] = ()
) -> list[Line2D]:
    """The entries of lines and of strokes at points; of many lines, methods and settings apart."""
    lines = list(series)
    looks: dict[str, tuple[str, str, LineStyle]]
    if len(lines) <= MOST_LINES:
        looks = {line.label: (line.color, line.marker, line.line) for line in lines}
    else:
        looks = {line.method: (line.color, line.marker, "") for line in lines}
        looks |= {line.setting: (GRAY, "", line.line) for line in lines if line.setting}
    if unpruned:
        looks["unpruned"] = BLACK, "", UNPRUNED_LINE
    for repeats in sorted({point.repeats for point in points if point.low != point.high}):
        looks[STROKES[repeats]] = GRAY, "|", ""
    if (more := len(looks) - MOST_ENTRIES) > 0:
        looks = dict(islice(looks.items(), MOST_ENTRIES)) | {f"and {more} more": (BLACK, "", "")}
    return [
        Line2D([], [], color=color, marker=marker, linestyle=line, label=literal(label))
        for label, (color, marker, line) in looks.items()
    ]


@rc_context(STYLE)  # type: ignore[arg-type]
def draw_figure(title: str, count: int, handles: Sequence[Line2D]) -> tuple[Figure, list[Axes]]:
    """Empty panels, two beside each other, or three in a row.

    Args:
        title: Stands above the first panel.
        count: Number of panels.
        handles: Entries of the legend.
    """
    columns = count if count <= 3 else 2
    rows = ceil(count / columns)
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    across = min(6, max(1, int(WIDTH / (SYMBOL + LETTER * longest))))
    foot = BOTTOM + ENTRY * ceil(len(handles) / across)
    height = TOP + HEIGHT * rows + foot - BOTTOM
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=LEFT / WIDTH,
        right=1 - RIGHT / WIDTH,
        top=1 - TOP / height,
        bottom=foot / height,
        hspace=BOTTOM / (HEIGHT - BOTTOM),
        wspace=GAP * columns / (WIDTH - LEFT - RIGHT - GAP * (columns - 1)),
    )
    panels = list(grid.flat)
    for panel in panels[count:]:
        panel.remove()
    panels[0].set_title(literal(title), loc="left", fontweight="bold")
    for panel in panels[:count]:
        panel.grid(color="#E4E4E4", linewidth=0.5)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.06, y=0.08)
    if handles:
        figure.legend(
            handles=handles, loc="lower center", ncols=across, frameon=False, handlelength=2.6
        )
    return figure, panels[:count]


def draw_lines(
    panel: Axes, lines: Mapping[Key, Sequence[Point]], series: Mapping[Key, Series]
) -> None:
    """Draw each line with its points, and the stroke of each point that has one."""
    for key, line in lines.items():
        if not line:
            continue
        style = series[key]
        x, y = [point.x for point in line], [point.y for point in line]
        panel.plot(
            x,
            y,
            color=style.color,
            marker=style.marker,
            linestyle=style.line,
            linewidth=1 if style.control else 1.3,
            markersize=5,
            markeredgewidth=1.3 if style.control else 0.5,
            markeredgecolor=style.color if style.control else "white",
            zorder=2 if style.control else 3,
        )
        if strokes := [point for point in line if point.low != point.high]:
            panel.vlines(
                [point.x for point in strokes],
                [point.low for point in strokes],
                [point.high for point in strokes],
                color=style.color,
                linewidth=0.7,
                alpha=0.6,
            )


def literal(text: str) -> str:
    r"""A short text that matplotlib does not take for a formula.

    >>> literal("$a$")
    '\\$a\\$'
    """
    return printable(text, LONGEST).replace("$", r"\$")


def percent(panel: Axes, x: bool = False, y: bool = False) -> None:
    """Write percent at the axes."""
    for axis, wanted in ((panel.xaxis, x), (panel.yaxis, y)):
        if wanted:
            axis.set_major_formatter(StrMethodFormatter("{x:g}%"))


def to_png(figure: Figure, dpi: int = DPI) -> bytes:
    """The figure as a PNG file."""
    return _saved(figure, format="png", dpi=dpi, pil_kwargs={"compress_level": COMPRESSION})


def to_paper(figure: Figure) -> dict[Format, bytes]:
    """The figure as files for papers, by their format."""
    with rc_context(STYLE):  # type: ignore[arg-type]
        return {
            kind: _saved(figure, format=kind, metadata=metadata)
            for kind, metadata in FORMATS.items()
        }


def _saved(figure: Figure, **options: Any) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands for it
        figure.savefig(file, **options)
    return file.getvalue()


def stack(images: Sequence[bytes]) -> tuple[bytes, int]:
    """PNG files below each other as one, and how many of them found no room."""
    if len(images) == 1:
        return images[0], 0
    placed: list[Image.Image] = []
    height = 0
    for data in images:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if height + image.height > TALLEST:
                break
            placed.append(image.convert("RGB"))
            height += image.height
    stacked = Image.new("RGB", (max(image.width for image in placed), height), "white")
    for image in reversed(placed):
        height -= image.height
        stacked.paste(image, (0, height))
    file = io.BytesIO()
    stacked.save(file, format="PNG", compress_level=COMPRESSION)
    return file.getvalue(), len(images) - len(placed)
