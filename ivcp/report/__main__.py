"""`python -m ivcp.report RUNS... [--out DIR]`: finished runs as tables, plots and one page."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ivcp.core.errors import UserError, exit_code
from ivcp.core.printable import printable
from ivcp.report.columns import Where, metric_name
from ivcp.report.comparison import Entry, with_tasks
from ivcp.report.escapes import markdown_line
from ivcp.report.gather import Gathered, gather
from ivcp.report.tables import (
    all_lines,
    all_numbers,
    group_caption,
    group_numbers,
    group_tables,
    run_tables,
)
from ivcp.report.variants import common_settings
from ivcp.report.view import PAGE, SAMPLES, WHERE, make_page
from ivcp.report.writers import to_csv, to_latex, to_markdown, to_screen

PIPE_WIDTH = 160  # columns, where no terminal has a width
FIGURES = "figures"
LONGEST = 1000  # characters of a line below the tables


def report(
    paths: Sequence[Path],
    out: Path,
    where: Sequence[str] = (),
    paired: bool = True,
    intervals: bool = True,
    plots: bool = True,
    quiet: bool = False,
) -> None:
    """Write tables, plots and the page; print the tables.

    The files are `table.csv`, `table.md`, `table.tex`, `pareto.png` and `report.html`; `groups.csv`
    and `groups.md` of groups, `ratio.png` and `layer.png` where runs differ in these, and
    `positions.png` where IVC tokens were kept; each figure also alone, as PDF, SVG and PNG in
    `figures/`.

    Args:
        paths: Run folders or parents of run folders.
        out: Folder for the files; made if it is missing.
        where: Conditions that the runs must meet, as in `choose`.
        paired: Whether to read each run's predictions, for intervals, tests and samples.
        intervals: Whether `table.tex` has the intervals.
        plots: Whether to draw plots and make the page.
        quiet: Whether to print only what was written.

    Raises:
        UserError: No run could be read, none meets the conditions, or a file cannot be written.
    """
    gathered = gather(paths, paired, where)
    entries, lines, summary = gathered.entries, gathered.lines, gathered.summary
    files = _tables(entries, lines, intervals)
    if plots:
        files |= _plots_and_page(gathered, paired)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).write_bytes(data)
    except OSError as error:
        raise UserError(f"The report cannot be written to {out}: {error}.") from error
    *names, last = dict.fromkeys(f"{FIGURES}/" if "/" in name else name for name in files)
    written = f"{summary}; {', '.join(names)} and {last} are in {out}."
    if quiet:
        print(written)
    else:
        _print(entries, [*lines, written])


def _tables(entries: Sequence[Entry], lines: Sequence[str], intervals: bool) -> dict[str, bytes]:
    table = to_markdown(all_lines(entries))
    notes = [markdown_line(line, LONGEST) for line in lines]
    paper_tables = run_tables(entries, Where.PAPER, intervals)
    if groups := group_tables(entries):
        paper_tables = [*group_tables(entries, paper=True), *paper_tables]
    texts = {
        "table.csv": to_csv(all_numbers(entries)),
        "table.md": "\n".join(
            f"{part}\n" for part in (markdown_line(_common(entries), LONGEST), table, *notes)
        ),
        "table.tex": to_latex(paper_tables),
    }
    if groups:
        caption = markdown_line(group_caption(entries))
        texts["groups.csv"] = to_csv(group_numbers(entries))
        texts["groups.md"] = "\n".join([*map(to_markdown, groups), f"{caption}\n"])
    return {name: text.encode() for name, text in texts.items()}


def _plots_and_page(gathered: Gathered, paired: bool) -> dict[str, bytes]:
    from ivcp.report.plots import draw_plots  # it takes seconds to import

    _, files, left_out = draw_plots(gathered.entries)
    return {**files, PAGE: make_page(gathered, SAMPLES if paired else 0, left_out)}


def _common(entries: Sequence[Entry]) -> str:
    """The settings of all runs, said once."""
    settings = common_settings([entry.info for entry in entries])
    metrics = {metric_name(entry) for entry in with_tasks(entries)}
    texts = [f"{name} {value}" for name, value in settings.items()]
    named = ", ".join(texts if len(metrics) > 1 else [*texts, f"metric {metrics.pop()}"])
    return f"Settings of all runs: {named}." if named else "No setting is the same in all runs."


def _print(entries: Sequence[Entry], lines: Sequence[str]) -> None:
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PIPE_WIDTH)
    console.print(to_screen(run_tables(entries, Where.SCREEN), console.width))
    if groups := group_tables(entries):
        console.print(to_screen(groups, console.width))
        lines = [group_caption(entries), *lines]
    for line in (_common(entries), *lines):
        console.print(
            printable(line, LONGEST), markup=False, emoji=False, highlight=False, soft_wrap=True
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="ivcp report",
        description="Gather finished runs into tables (CSV, Markdown, LaTeX, on screen), plots and "
        f"one self-contained page, {PAGE}.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders or parents of them")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder for the files (default: report)"
    )
    parser.add_argument(
        "--no-intervals",
        dest="intervals",
        action="store_false",
        help="leave the intervals out of table.tex",
    )
    parser.add_argument(
        "--no-paired",
        dest="paired",
        action="store_false",
        help="leave out intervals, tests and samples, for which all predictions are read",
    )
    parser.add_argument(
        "--tables",
        dest="plots",
        action="store_false",
        help=f"write the tables alone, without plots and {PAGE}",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print which files were written, and no tables"
    )
    parser.add_argument("--where", action="append", default=[], metavar="NAME=VALUE", help=WHERE)
    options = vars(parser.parse_args(arguments))
    return exit_code(lambda: report(options.pop("runs"), **options))


if __name__ == "__main__":
    sys.exit(main())
