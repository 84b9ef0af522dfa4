"""One page with all that a report holds, which opens without a network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ivcp.core.printable import printable
from ivcp.report.columns import Where
from ivcp.report.comparison import Entry
from ivcp.report.tables import (
    group_caption,
    group_tables,
    run_tables,
    task_table,
)
from ivcp.report.variants import Values, split_settings

if TYPE_CHECKING:
    from ivcp.report.gallery import Gallery

TEMPLATE, STYLE = "page.html.j2", "page.css"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser lets the page do: nothing but show what is in it."""
LONGEST = 4000
"""Most characters of a question, an answer or a setting."""


@dataclass(frozen=True)
class PageImage:
    """One image with its caption.

    Attributes:
        caption: What it shows.
        data: The file.
        kind: Of the file.
    """

    caption: str
    data: bytes
    kind: Literal["png", "jpeg"] = "png"


def to_html(
    entries: Sequence[Entry],
    plots: Sequence[PageImage] = (),
    galleries: Sequence[Gallery] = (),
    notes: Sequence[str] = (),
    summary: str = "",
) -> str:
    """The page as one file.

    Args:
        entries: The runs.
        plots: The plots.
        galleries: What pruning regressed and fixed.
        notes: What a reader must know, one sentence each.
        summary: One sentence on what was read and left out.
    """
    groups = group_tables(entries)
    sections = {
        "Results": True,
        "By task": groups,
        "Plots": plots,
        "Regressed and fixed": galleries,
        "Settings": True,
        "Notes": notes,
    }
    environment = Environment(
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: Markup(base64.b64encode(data).decode())
    environment.filters["anchor"] = lambda name: name.lower().replace(" ", "-")
    folder = files("ivcp.report")
    return environment.from_string((folder / TEMPLATE).read_text(encoding="utf-8")).render(
        policy=POLICY,
        style=Markup((folder / STYLE).read_text(encoding="utf-8")),
        sections=[name for name, content in sections.items() if content],
        datasets=dict.fromkeys(entry.dataset for entry in entries),
        summary=summary,
        runs=run_tables(entries, Where.PAGE),
        tasks=task_table(entries),
        groups=groups,
        group_caption=group_caption(entries),
        plots=plots,
        galleries=galleries,
        run_name=run_name,
        settings=_settings(entries),
        notes=notes,
    )


def _printable(value: Any) -> Any:
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value, LONGEST) if is_text else value


def _settings(entries: Sequence[Entry]) -> list[tuple[str, Values, list[tuple[str, Values]]]]:
    """For each dataset a title, the settings in common, and title and settings of each run."""
    datasets: dict[str, list[Entry]] = {}
    for entry in entries:
        datasets.setdefault(entry.dataset, []).append(entry)
    settings = []
    for dataset, runs in datasets.items():
        common, others = split_settings([entry.info for entry in runs])
        titles = [f"{run_name(entry)} · {entry.run.folder}" for entry in runs]
        count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        settings.append((f"{dataset}: {count}", common, list(zip(titles, others, strict=True))))
    return settings


def run_name(entry: Entry) -> str:
    """A run in a few words."""
    layer = f", layer {entry.layers}" if entry.layers else ""
    ratio = "" if entry.info.unpruned or entry.ratio is None else f" at {entry.ratio:g}"
    method = f"{entry.info.pruner} {entry.variant.text}".strip()
    return f"{entry.dataset} · {entry.info.model} · {method}{ratio}{layer}"
