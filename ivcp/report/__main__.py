"""`python -m ivcp.report RUNS... [--out DIR]`: finished runs as tables, plots and one page."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ivcp.core.errors import UserError, exit_code
from ivcp.report import group_table, latex, table
from ivcp.report.page import Page, to_html
from ivcp.report.remarks import PAIRED, remarks
from ivcp.report.rows import Row, make_rows
from ivcp.report.runs import Run, find_runs, merge_repeats
from ivcp.report.variants import with_variants

if TYPE_CHECKING:
    from ivcp.report.gallery import Gallery

PIPE_WIDTH = 160  # columns, where no terminal tells its own
PAGE = "report.html"


def report(places: Sequence[Path], out: Path, paired: bool = True, drawn: bool = True) -> None:
    """Write tables, plots and the page; print the tables.

    The files are `table.csv`, `table.md`, `table.tex`, `pareto.png` and `report.html`; `groups.csv`
    and `groups.md` of groups, `ratio.png` and `layer.png` where runs differ in these, and
    `positions.png` where IVC tokens were kept.

    Args:
        places: Run folders or parents of run folders.
        out: Folder for the files; made if it is missing.
        paired: Whether to read each run's predictions, for intervals, tests and galleries.
        drawn: Whether to draw plots and make the page.

    Raises:
        UserError: No run could be read, or a file cannot be written.
    """
    runs, problems = find_runs(places)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not runs:
        raise UserError(
            f"No finished run was found in {', '.join(map(str, places))}; give folders that hold "
            "a metrics.json, such as outputs/ or multirun/."
        )
    runs, repeated = merge_repeats(runs)
    runs = with_variants(runs)
    rows, lines = _compare(runs, paired)
    groups = group_table.group_tables(rows)
    found = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    left_out = f", {repeated} repeated left out" if repeated else ""
    skipped = f", {len(problems)} skipped" if problems else ""
    summary = f"{found}{left_out}{skipped}"
    files = _tables(rows, groups, lines)
    if drawn:
        files |= _drawn(rows, groups, [*lines, *problems], summary, paired)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (out / name).write_bytes(data)
    except OSError as error:
        raise UserError(f"The report cannot be written to {out}: {error}.") from error
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PIPE_WIDTH)
    console.print(table.to_screen(rows, console.width))
    if groups:
        console.print(group_table.to_screen(groups, console.width))
        lines = [group_table.caption(groups), *lines]
    *names, last = files
    lines.append(f"{summary}; {', '.join(names)} and {last} are in {out}.")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _compare(runs: Sequence[Run], paired: bool) -> tuple[list[Row], list[str]]:
    """The rows, and what to say below them."""
    if not paired:
        return make_rows(runs), remarks(runs)
    from ivcp.report.paired import pair_runs  # torchmetrics takes seconds to import

    statistics, unpaired = pair_runs(runs)
    lines = remarks(runs, unpaired)
    return make_rows(runs, statistics), [PAIRED, *lines] if statistics else lines


def _tables(
    rows: Sequence[Row], groups: Sequence[group_table.GroupTable], lines: Sequence[str]
) -> dict[str, bytes]:
    texts = {
        "table.csv": table.to_csv(rows),
        "table.md": table.to_markdown(rows) + "".join(f"\n{line}\n" for line in lines),
        "table.tex": latex.to_latex(rows),
    }
    if groups:
        texts |= {
            "groups.csv": group_table.to_csv(groups),
            "groups.md": group_table.to_markdown(groups),
        }
    return {name: text.encode() for name, text in texts.items()}


def _drawn(
    rows: Sequence[Row],
    groups: Sequence[group_table.GroupTable],
    notes: Sequence[str],
    summary: str,
    paired: bool,
) -> dict[str, bytes]:
    """Plots, and the page that shows them."""
    from ivcp.report.plots import draw_plots  # matplotlib takes a second to import

    plots = draw_plots(rows)
    galleries: list[Gallery] = []
    problems: list[str] = []
    if paired:
        from ivcp.report.gallery import make_galleries  # torch takes seconds to import

        galleries, problems = make_galleries(rows)
    page = Page(
        rows=rows,
        groups=groups,
        plots=plots.plots,
        galleries=galleries,
        notes=[*notes, *plots.problems, *problems],
        summary=f"{summary}.",
    )
    return {**plots.files, PAGE: to_html(page).encode()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ivcp.report",
        description="Gather finished runs into tables (CSV, Markdown, LaTeX, on screen), plots and "
        f"one self-contained page, {PAGE}.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders or parents of them")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder for the files (default: report)"
    )
    parser.add_argument(
        "--no-paired",
        dest="paired",
        action="store_false",
        help="leave out intervals, tests and galleries, for which all predictions are read",
    )
    parser.add_argument(
        "--tables",
        dest="drawn",
        action="store_false",
        help=f"write the tables alone, without plots and {PAGE}",
    )
    given = parser.parse_args(arguments)
    return exit_code(lambda: report(given.runs, given.out, given.paired, given.drawn))


if __name__ == "__main__":
    sys.exit(main())
