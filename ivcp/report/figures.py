"""Figures of equal panels above one legend, as PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from math import ceil

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import StrMethodFormatter
from PIL import Image

from ivcp.report.series import Key, LineStyle, Point, Series

WIDTH, HIGH, SYMBOL, LETTER = 9.5, 3.1, 0.9, 0.075
"""Inches: of the figure, of a panel with its labels, of a symbol in the legend, of a letter."""
TOP, BOTTOM, LEFT, RIGHT, ENTRY = 0.4, 0.62, 0.8, 0.15, 0.24
"""Inches: around the panels, and of a line of the legend."""
COLUMNS = 2
MOST_ENTRIES, PLACE = 24, "#707070"
"""Lines that have an entry each, and the colour of a place's entry where they have not."""
DPI = 130
COMPRESSION = 4  # of PNG files: speed before size, for reports of many plots
TALLEST = 60_000  # pixels of a picture
UNPRUNED_LINE = (0, (6, 3))


def draw_figure(title: str, count: int, handles: Sequence[Line2D]) -> tuple[Figure, list[Axes]]:
    """Empty panels, two beside each other.

    Args:
        title: Stands above the first panel.
        count: Number of panels.
        handles: Entries of the legend.
    """
    columns, rows = min(COLUMNS, count), ceil(count / COLUMNS)
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    across = min(5, max(1, int(WIDTH / (SYMBOL + LETTER * longest))))
    foot = BOTTOM + ENTRY * ceil(len(handles) / across)
    high = TOP + HIGH * rows + foot - BOTTOM
    figure = Figure(figsize=(WIDTH, high), dpi=DPI)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=LEFT / WIDTH,
        right=1 - RIGHT / WIDTH,
        top=1 - TOP / high,
        bottom=foot / high,
        hspace=BOTTOM / (HIGH - BOTTOM),
        wspace=0.16,
    )
    panels = list(grid.flat)
    for panel in panels[count:]:
        panel.remove()
    panels[0].set_title(literal(title), loc="left", fontweight="bold")
    for panel in panels[:count]:
        panel.grid(color="#E4E4E4", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.06, y=0.08)
    if handles:
        figure.legend(
            handles=handles, loc="lower center", ncols=across, frameon=False, handlelength=3
        )
    return figure, panels[:count]


def literal(words: str) -> str:
    r"""Words that the library does not take for a formula.

    >>> literal("$a$")
    '\\$a\\$'
    """
    return words.replace("$", r"\$")


def percent(panel: Axes, x: bool = False, y: bool = False) -> None:
    """Write percent at the axes."""
    for axis, wanted in ((panel.xaxis, x), (panel.yaxis, y)):
        if wanted:
            axis.set_major_formatter(StrMethodFormatter("{x:g}%"))


def entries(series: Iterable[Series], unpruned: bool = False) -> list[Line2D]:
    """The legend of these lines; of many, methods and places apart."""
    told = list(series)
    looks: dict[str, tuple[str, str, LineStyle]]
    if len(told) <= MOST_ENTRIES:
        looks = {one.label: (one.color, one.marker, one.line) for one in told}
    else:
        looks = {one.method: (one.color, one.marker, "") for one in told}
        looks |= {one.place: (PLACE, "", one.line) for one in told if one.place}
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle=line, label=literal(label))
        for label, (color, marker, line) in looks.items()
    ]
    if unpruned:
        handles.append(Line2D([], [], color="#000000", linestyle=UNPRUNED_LINE, label="unpruned"))
    return handles


def draw_lines(
    panel: Axes, lines: Mapping[Key, Sequence[Point]], series: Mapping[Key, Series]
) -> None:
    """Draw each line with its points, and a stroke where runs of one point differ."""
    for key, found in lines.items():
        style = series[key]
        places, means, lows, highs = zip(*found, strict=True)
        panel.plot(
            places,
            means,
            color=style.color,
            marker=style.marker,
            linestyle=style.line,
            linewidth=1.4 if style.control else 1.8,
            markersize=7,
            markeredgewidth=1.8 if style.control else 0.8,
            markeredgecolor=style.color if style.control else "white",
            zorder=2 if style.control else 3,
        )
        if lows != highs:
            panel.vlines(places, lows, highs, color=style.color, linewidth=1)


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", pil_kwargs={"compress_level": COMPRESSION})
    return file.getvalue()


def stack(pictures: Sequence[bytes]) -> tuple[bytes, int]:
    """PNG files below each other as one, and how many of them found no room."""
    if len(pictures) == 1:
        return pictures[0], 0
    parts: list[Image.Image] = []
    for data in pictures:
        with Image.open(io.BytesIO(data)) as picture:
            if sum(part.height for part in parts) + picture.height > TALLEST:
                break
            parts.append(picture.convert("RGB"))
    width, height = max(part.width for part in parts), sum(part.height for part in parts)
    whole = Image.new("RGB", (width, height), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    file = io.BytesIO()
    whole.save(file, format="PNG", compress_level=COMPRESSION)
    return file.getvalue(), len(pictures) - len(parts)
