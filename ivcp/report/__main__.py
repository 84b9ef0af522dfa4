"""`python -m ivcp.report RUNS... [--out DIR]`: finished runs as tables and one plot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ivcp.core.errors import UserError
from ivcp.report import suite, table
from ivcp.report.paired import pair_runs
from ivcp.report.pareto import save_pareto
from ivcp.report.remarks import PAIRED, remarks
from ivcp.report.rows import make_rows
from ivcp.report.runs import find_runs, merge_baselines

PIPE_WIDTH = 140  # columns, where no terminal tells its own


def report(places: Sequence[Path], out: Path, paired: bool = True) -> None:
    """Write `table.csv`, `table.md`, `pareto.png`, and of suites `suite.csv` and `suite.md`.

    The tables are printed too.

    Args:
        places: Run folders or parents of run folders.
        out: Folder for the files; made if it is missing.
        paired: Whether to read each run's predictions for intervals and tests.

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
    runs, repeated = merge_baselines(runs)
    statistics, unpaired = pair_runs(runs) if paired else ({}, [])
    rows = make_rows(runs, statistics)
    suites = suite.suite_tables(rows)
    lines = remarks(runs, unpaired)
    if statistics:
        lines = [PAIRED, *lines]
    texts = {
        "table.csv": table.to_csv(rows),
        "table.md": table.to_markdown(rows) + "".join(f"\n{line}\n" for line in lines),
    }
    if suites:
        texts |= {"suite.csv": suite.to_csv(suites), "suite.md": suite.to_markdown(suites)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
        save_pareto(runs, out / "pareto.png")
    except OSError as error:
        raise UserError(f"The report cannot be written to {out}: {error}.") from error
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    console.print(table.to_screen(rows))
    if suites:
        console.print(suite.to_screen(suites, console.width))
        lines = [suite.caption(suites), *lines]
    left_out = f", {repeated} repeated unpruned left out" if repeated else ""
    skipped = f", {len(problems)} skipped" if problems else ""
    found = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    lines.append(f"{found}{left_out}{skipped}; {', '.join(texts)} and pareto.png are in {out}.")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ivcp.report",
        description="Gather finished runs into tables (CSV, Markdown, on screen) and pareto.png.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders or parents of them")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder for the files (default: report)"
    )
    parser.add_argument(
        "--no-paired",
        dest="paired",
        action="store_false",
        help="leave out intervals and tests, for which all predictions are read",
    )
    given = parser.parse_args(arguments)
    try:
        report(given.runs, given.out, given.paired)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
