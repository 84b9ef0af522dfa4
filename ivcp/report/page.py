"""One page with all that a report holds, which opens without a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from ivcp.report import group_table
from ivcp.report.formatting import UNKNOWN, plain
from ivcp.report.html import figure, folded, pairs, table, tag, text
from ivcp.report.rows import Row, dataset_name
from ivcp.report.runs import Run
from ivcp.report.settings import settings_of
from ivcp.report.stylesheet import STYLE
from ivcp.report.table import COLUMNS, Column, by_block

if TYPE_CHECKING:
    from ivcp.report.gallery import Case, Gallery

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser lets the page do: nothing but show what is in it."""


@dataclass(frozen=True)
class Plot:
    """One plot.

    Attributes:
        caption: What it shows.
        data: A PNG file.
    """

    caption: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page shows.

    Attributes:
        rows: The runs.
        groups: Their tables by set.
        plots: The plots.
        galleries: What pruning broke and fixed.
        notes: What a reader must know, one sentence each.
        summary: One sentence on what was found and left out.
    """

    rows: Sequence[Row]
    groups: Sequence[group_table.GroupTable] = ()
    plots: Sequence[Plot] = ()
    galleries: Sequence[Gallery] = ()
    notes: Sequence[str] = ()
    summary: str = ""


def to_html(page: Page) -> str:
    """The page as one file."""
    sections = {
        "Results": list(_results(page)),
        "By set": list(_suites(page.groups)),
        "Plots": [
            tag("div", figure(plot.data, "png", plot.caption), class_="plot") for plot in page.plots
        ],
        "Regressed and fixed": list(_galleries(page.galleries)),
        "Settings": list(_settings([row.run for row in page.rows])),
        "Notes": [tag("ul", *(text("li", note) for note in page.notes))] if page.notes else [],
    }
    shown = {name: parts for name, parts in sections.items() if parts}
    links = (tag("a", escape(name), href=f"#{_anchor(name)}") for name in shown)
    body = "\n".join(
        tag("section", text("h2", name), *parts, id=_anchor(name), class_=_anchor(name))
        for name, parts in shown.items()
    )
    title = "Vision-token pruning: " + ", ".join(
        dict.fromkeys(row.run.dataset for row in page.rows)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{text('title', title)}<style>{STYLE}</style></head><body>\n"
        f"<header>{text('h1', 'Vision-token pruning')}"
        f"{text('p', page.summary, class_='faint')}{tag('nav', *links)}</header>\n"
        f"<main>{body}</main></body></html>\n"
    )


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _results(page: Page) -> Iterator[str]:
    """A table for each dataset, model and metric, then the sets of groups."""
    apart = [column for column in COLUMNS if not column.shared]
    for title, block in by_block(page.rows).items():
        yield text("h3", title) + _rows_table(block, apart)
    if tasks := [task for row in page.rows for task in row.tasks]:
        shown = _rows_table(tasks, COLUMNS)
        yield folded(f"Each set of a group, run by run ({len(tasks)} rows)", shown)


def _rows_table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """One line a row; a column of which nothing is known is left out."""
    told = [
        (column, cells)
        for column in columns
        if set(cells := [column.show(row) for row in rows]) != {UNKNOWN}
    ]
    styles = []
    for number, row in enumerate(rows):
        changed = number and row.run.ratio != rows[number - 1].run.ratio
        styles.append("unpruned" if row.run.unpruned else "first" if changed else "")
    head, words = [column.heading for column, _ in told], [column.text for column, _ in told]
    lines = zip(*(cells for _, cells in told), strict=True)
    return table(head, zip(styles, lines, strict=True), words)


def _suites(tables: Sequence[group_table.GroupTable]) -> Iterator[str]:
    for one in tables:
        method = group_table.method_names(one)
        head = [*method, *("\n".join(column) for column in one.columns)]
        lines = [
            ("unpruned" if row.run.unpruned else "", cells)
            for (row, _), cells in zip(one.lines, group_table.shown_cells(one), strict=True)
        ]
        words = [name in group_table.WORDS for name in head]
        yield text("h3", f"{one.group} · {one.model}") + table(head, lines, words)
    if tables:
        yield text("p", group_table.caption(tables), class_="faint")


def _galleries(galleries: Sequence[Gallery]) -> Iterator[str]:
    for number, gallery in enumerate(galleries):
        title = (
            f"{run_name(gallery.run)}: {gallery.regressed} regressed, {gallery.fixed} fixed of "
            f"{gallery.both} samples ({len(gallery.cases)} shown)"
        )
        yield folded(title, *map(_case, gallery.cases), open_=number == 0)


def _case(case: Case) -> str:
    verdict = "fixed" if case.fixed else "regressed"
    shots = [figure(shot.data, shot.kind, shot.caption) for shot in case.pictures]
    return tag(
        "article",
        tag("h4", text("b", verdict), escape(f" · {case.sample}")),
        pairs(
            {
                "asked": case.question,
                "right": case.answer,
                "unpruned": case.unpruned,
                "pruned": case.pruned,
            }
        ),
        tag("div", *shots, class_="shots") if shots else text("p", case.problem, class_="faint"),
        class_=verdict,
    )


def _settings(runs: Sequence[Run]) -> Iterator[str]:
    """For each dataset what its runs share, then what each has of its own."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(dataset_name(run), []).append(run)
    for dataset, group in groups.items():
        settings = settings_of(group)
        shared = folded(f"shared by all ({len(settings.shared)})", pairs(settings.shared))
        own = (
            folded(f"{run_name(run)} · {run.folder}", pairs(told))
            for run, told in zip(group, settings.own, strict=True)
        )
        count = "1 run" if len(group) == 1 else f"{len(group)} runs"
        yield folded(f"{dataset}: {count}", shared, *own)


def run_name(run: Run) -> str:
    """A run in a few words."""
    layer = f", layer {run.layer}" if run.layer else ""
    ratio = "" if run.unpruned else f" at {plain(run.ratio)}"
    apart = f" {run.apart}" if run.apart else ""
    return f"{run.dataset} · {run.model} · {run.pruner}{apart}{ratio}{layer}"
