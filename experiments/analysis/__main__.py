"""Tables and plots of the studies: `python -m experiments.analysis [STUDY...]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.analysis import equal_cost, horizon, lost, positions, spread, two_stage
from experiments.analysis.samples import MODELS, Studies
from experiments.analysis.tables import Analysis, to_csv, to_markdown
from ivcp.report.figures import to_paper, to_png

ANALYSES: dict[str, Callable[[Studies], Analysis | None]] = {
    "positions": positions.analyse,
    "spread": spread.analyse,
    "horizon": horizon.analyse,
    "equal_cost": equal_cost.analyse,
    "lost": lost.analyse,
    "two_stage": two_stage.analyse,
}


def write(analysis: Analysis, folder: Path) -> None:
    """The tables and the plot of a study."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in {"table.csv": analysis.rows, **analysis.files}.items():
        (folder / name).write_text(to_csv(table), encoding="utf-8")
    (folder / "table.md").write_text(to_markdown(analysis), encoding="utf-8")
    (folder / "plot.png").write_bytes(to_png(analysis.figure))
    (folder / "plot.pdf").write_bytes(to_paper(analysis.figure)["pdf"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Analyse the studies that are named, or all; what is left out is told on stderr."""
    parser = argparse.ArgumentParser(prog="python -m experiments.analysis", description=__doc__)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=", ".join(ANALYSES))
    parser.add_argument("--root", type=Path, default=Path("outputs/studies"), help="of the runs")
    parser.add_argument("--models", nargs="+", metavar="MODEL", default=MODELS, help="below it")
    parser.add_argument("--out", type=Path, default=Path("experiments"), help="of the tables")
    options = parser.parse_args(arguments)
    if unknown := set(options.studies) - set(ANALYSES):
        parser.error(f"STUDY must be one of {', '.join(ANALYSES)}; got {', '.join(unknown)}.")
    studies = Studies(options.root, options.models)
    for name in options.studies or ANALYSES:
        if analysis := ANALYSES[name](studies):
            write(analysis, options.out / name)
        else:
            studies.problems.append(f"{name}: there are no runs, so nothing is written.")
    for problem in studies.problems:
        print(problem, file=sys.stderr)


if __name__ == "__main__":
    main()
