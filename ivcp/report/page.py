"""One page with all that a report holds, which opens without a network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ivcp.core.printable import printable
from ivcp.report.columns import COLUMNS, UNKNOWN, VALUE, score
from ivcp.report.comparison import Entry
from ivcp.report.marks import MEANINGS, BudgetSummary, block_of, summarize_budgets, variant_name
from ivcp.report.run_data import AXES, blocks_with_times, run_data, run_settings
from ivcp.report.runs_table import RunsTable, make_runs_table
from ivcp.report.tables import group_caption, group_tables, task_table

if TYPE_CHECKING:
    from ivcp.report.gallery import Gallery

TEMPLATE, STYLE = "page.html.j2", "page.css"
LIBRARIES = ("vega.js", "datatables.js")
SCRIPTS = ("data.js", "table.js", "plots.js", "overlay.js", "samples.js", "settings.js", "page.js")
"""Files of the page's own script, which is one function."""
EARLY = 'document.documentElement.dataset.script = "yes";'
"""Runs before the tables are there: a browser need not lay out rows that the script leaves out."""
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
"""What a browser lets the page do: run and show what is in it, and nothing else."""
LONGEST = 4000
"""Most characters of a question, an answer or a setting."""
MOST_LISTED = 60
"""Runs whose settings are listed below each other; those of more runs can be compared in pairs."""


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
    galleries: Sequence[Gallery] = (),
    images: Sequence[bytes] = (),
    notes: Sequence[str] = (),
    summary: str = "",
) -> str:
    """The page as one file.

    Args:
        entries: The runs.
        galleries: Their samples.
        images: The images of all samples, as JPEG.
        notes: What a reader must know, one sentence each.
        summary: One sentence on what was read and left out.
    """
    timed, blocks = blocks_with_times(entries), {block_of(entry) for entry in entries}
    table, groups = make_runs_table(entries, timed == blocks), group_tables(entries)
    common, settings = run_settings(entries)
    sections = {
        "Results": True,
        "Plots": True,
        "Samples": galleries,
        "By task": groups,
        "Settings": True,
        "Notes": notes,
    }
    runs = run_data(entries, timed)
    data = {
        "runs": runs,
        "axes": {name: label for name, (label, _) in AXES.items()},
        "hidden": [number for number, column in enumerate(table.columns) if column.hidden],
        "runsOf": [gallery.data["runs"] for gallery in galleries],
    }
    styles = [_text(STYLE), _labels(table)]
    scripts = own_scripts()
    environment = Environment(
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["anchor"] = lambda name: name.lower().replace(" ", "-")
    return environment.from_string(_text(TEMPLATE)).render(
        policy=POLICY + _policy("style-src", styles) + _policy("script-src", scripts),
        styles=[Markup(style) for style in styles],
        scripts=[Markup(script) for script in scripts],
        sections=[name for name, content in sections.items() if content],
        datasets=dict.fromkeys(entry.dataset for entry in entries),
        summary=summary,
        table=table,
        budgets=[_glance(budget) for budget in summarize_budgets(entries)],
        marks=MEANINGS,
        tasks=task_table(entries),
        groups=groups,
        group_caption=group_caption(entries),
        galleries=galleries,
        axes={name: label for name, (label, _) in AXES.items()},
        common=common,
        listed=_listed(runs, settings),
        notes=notes,
        data=_json(data),
        settings=_packed({"common": common, "runs": settings}),
        samples=[_packed(gallery.data) for gallery in galleries],
        images=[_base64(image) for image in images],
    )


def _glance(summary: BudgetSummary) -> dict[str, str]:
    """A line of "At a glance"."""
    best, base, random = summary.best, summary.unpruned, summary.random
    cells = {column.name: column.cell(best) for column in COLUMNS if column.heading}
    return {
        "budget": summary.budget,
        "where": " · ".join(summary.block[:2]),
        "unpruned": UNKNOWN if base is None else VALUE.cell(base),
        "method": variant_name(best),
        "score": cells["value"],
        "difference": cells["difference"],
        "random": UNKNOWN if random is None else score(random, best.metric.unit),
        "below": UNKNOWN if random is None else ", ".join(summary.below) or "none",
    }


def _printable(value: Any) -> Any:
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value, LONGEST) if is_text else value


def _clean(value: Any) -> Any:
    """`printable` of all texts in a value."""
    if isinstance(value, str):
        return printable(value, LONGEST)
    if isinstance(value, Mapping):
        return {_clean(name): _clean(item) for name, item in value.items()}
    return list(map(_clean, value)) if isinstance(value, list | tuple) else value


def _json(value: Any) -> Markup:
    """JSON that stands in an element: what could end the element or begin another is escaped."""
    text = json.dumps(_clean(value), separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _packed(value: Any) -> Markup:
    """Compressed JSON as base64; a browser unpacks it when it is needed."""
    text = json.dumps(_clean(value), separators=(",", ":"))
    return _base64(gzip.compress(text.encode(), mtime=0))


def _base64(data: bytes) -> Markup:
    return Markup(base64.b64encode(data).decode())


def _text(name: str) -> str:
    return (files("ivcp.report") / name).read_text(encoding="utf-8")


def own_scripts() -> list[str]:
    """All code of a page: the first line, libraries, then what was written for it."""
    return [EARLY, *map(_library, LIBRARIES), _script()]


def _library(name: str) -> str:
    return gzip.decompress((files("ivcp.report") / "assets" / f"{name}.gz").read_bytes()).decode()


def _script() -> str:
    """The page's own script."""
    body = "\n".join(_text(f"browser/{name}") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}}})();\n'


def _labels(table: RunsTable) -> str:
    """Rules that name the cells of a row on narrow screens, where a row is a list."""
    return "\n".join(
        f'td.c-{column.name}::before {{ content: "{column.heading}"; }}' for column in table.columns
    )


def _policy(name: str, sources: Sequence[str]) -> str:
    """A directive that allows these texts in an element, by their hashes, and no others."""
    hashes = (hashlib.sha256(source.encode()).digest() for source in sources)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    return f"{name} {allowed}; "


def _listed(
    runs: Sequence[Mapping[str, Any]], settings: Sequence[Mapping[str, str]]
) -> list[tuple[str, str, Mapping[str, str]]]:
    """Name, folder and own settings of each run, if there are few enough to be read."""
    if len(runs) > MOST_LISTED:
        return []
    return [(r["name"], r["folder"], s) for r, s in zip(runs, settings, strict=True)]
