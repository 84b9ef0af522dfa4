"""`python -m ivcp.report RUNS... [--out DIR]`: finished runs as one table and one plot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ivcp.core.errors import UserError
from ivcp.report.pareto import save_pareto
from ivcp.report.runs import find_runs, merge_baselines
from ivcp.report.table import make_rows, to_csv, to_markdown, to_screen

PIPE_WIDTH = 140  # columns, where no terminal tells its own


def report(places: Sequence[Path], out: Path) -> None:
    """Write `table.csv`, `table.md` and `pareto.png` and print the table.

    Args:
        places: Run folders or parents of run folders.
        out: Folder for the files; made if it is missing.

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
    rows = make_rows(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "table.csv").write_text(to_csv(rows), encoding="utf-8")
        (out / "table.md").write_text(to_markdown(rows), encoding="utf-8")
        save_pareto(runs, out / "pareto.png")
    except OSError as error:
        raise UserError(f"The report cannot be written to {out}: {error}.") from error
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    console.print(to_screen(rows))
    left_out = f", {repeated} repeated unpruned left out" if repeated else ""
    skipped = f", {len(problems)} skipped" if problems else ""
    found = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    files = f"table.csv, table.md and pareto.png are in {out}."
    console.print(f"{found}{left_out}{skipped}; {files}", markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ivcp.report",
        description="Gather finished runs into table.csv, table.md and pareto.png.",
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders or parents of them")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder for the files (default: report)"
    )
    given = parser.parse_args(arguments)
    try:
        report(given.runs, given.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
