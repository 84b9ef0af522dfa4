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
from ivcp.report.columns import Where
from ivcp.report.comparison import Entry, make_entries, merge_repeats, with_statistics
from ivcp.report.escapes import markdown
from ivcp.report.remarks import PAIRED, remarks
from ivcp.report.tables import (
    all_lines,
    all_numbers,
    group_caption,
    group_numbers,
    group_tables,
    run_tables,
)
from ivcp.report.writers import to_csv, to_latex, to_markdown, to_screen
from ivcp.results.load import find_runs

PIPE_WIDTH = 160  # columns, where no terminal has a width
PAGE = "report.html"
LONGEST = 1000  # characters of a line below the tables


def report(
    paths: Sequence[Path], out: Path, paired: bool = True, plots: bool = True, quiet: bool = False
) -> None:
    """Write tables, plots and the page; print the tables.

    The files are `table.csv`, `table.md`, `table.tex`, `pareto.png` and `report.html`; `groups.csv`
    and `groups.md` of groups, `ratio.png` and `layer.png` where runs differ in these, and
    `positions.png` where IVC tokens were kept.

    Args:
        paths: Run folders or parents of run folders.
        out: Folder for the files; made if it is missing.
        paired: Whether to read each run's predictions, for intervals, tests and galleries.
        plots: Whether to draw plots and make the page.
        quiet: Whether to print only what was written.

    Raises:
        UserError: No run could be read, or a file cannot be written.
    """
    runs, problems = find_runs(paths)
    for problem in problems:
        print(printable(problem), file=sys.stderr)
    if not runs:
        raise UserError(
            f"No finished run was found in {', '.join(map(str, paths))}; give folders that hold "
            "a metrics.json, such as outputs/ or multirun/."
        )
    runs, repeated = merge_repeats(runs)
    entries, lines = _compare(make_entries(runs), paired)
    summary = ", ".join(
        [
            "1 run" if len(runs) == 1 else f"{len(runs)} runs",
            *([f"{repeated} repeated left out"] if repeated else []),
            *([f"{len(problems)} skipped"] if problems else []),
        ]
    )
    files = _tables(entries, lines)
    if plots:
        files |= _plots_and_page(entries, [*lines, *problems], f"{summary}.", paired)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (out / name).write_bytes(data)
    except OSError as error:
        raise UserError(f"The report cannot be written to {out}: {error}.") from error
    *names, last = files
    written = f"{summary}; {', '.join(names)} and {last} are in {out}."
    if quiet:
        print(written)
    else:
        _print(entries, [*lines, written])


def _compare(entries: list[Entry], paired: bool) -> tuple[list[Entry], list[str]]:
    """The entries with statistics, and the lines below their tables."""
    if not paired:
        return entries, remarks(entries)
    from ivcp.report.paired import pair_entries  # torch and scipy take seconds to import

    statistics, unpaired = pair_entries(entries)
    lines = remarks(entries, unpaired)
    return with_statistics(entries, statistics), [PAIRED, *lines] if statistics else lines


def _tables(entries: Sequence[Entry], lines: Sequence[str]) -> dict[str, bytes]:
    notes = [markdown(line, LONGEST) for line in lines]
    texts = {
        "table.csv": to_csv(all_numbers(entries)),
        "table.md": "\n".join([to_markdown(all_lines(entries)), *(f"{line}\n" for line in notes)]),
        "table.tex": to_latex(run_tables(entries, Where.PAPER)),
    }
    if groups := group_tables(entries):
        caption = markdown(group_caption(entries))
        texts["groups.csv"] = to_csv(group_numbers(entries))
        texts["groups.md"] = "\n".join([*map(to_markdown, groups), f"{caption}\n"])
    return {name: text.encode() for name, text in texts.items()}


def _plots_and_page(
    entries: Sequence[Entry], notes: Sequence[str], summary: str, paired: bool
) -> dict[str, bytes]:
    from ivcp.report.gallery import make_galleries  # these take seconds to import
    from ivcp.report.page import to_html
    from ivcp.report.plots import draw_plots

    plots, files, left_out = draw_plots(entries)
    galleries, problems = make_galleries(entries) if paired else ([], [])
    page = to_html(entries, plots, galleries, [*notes, *left_out, *problems], summary)
    return {**files, PAGE: page.encode()}


def _print(entries: Sequence[Entry], lines: Sequence[str]) -> None:
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=PIPE_WIDTH)
    console.print(to_screen(run_tables(entries, Where.SCREEN), console.width))
    if groups := group_tables(entries):
        console.print(to_screen(groups, console.width))
        lines = [group_caption(entries), *lines]
    for line in lines:
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
        "--no-paired",
        dest="paired",
        action="store_false",
        help="leave out intervals, tests and galleries, for which all predictions are read",
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
    options = vars(parser.parse_args(arguments))
    return exit_code(lambda: report(options.pop("runs"), **options))


if __name__ == "__main__":
    sys.exit(main())
