"""What is said under the tables, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ivcp.report.comparison import Unpaired
from ivcp.report.remarks import remarks
from ivcp.report.runs import find_runs

ALONE = (
    "no unpruned run of the same model, data and settings is there to hold them against; report "
    "one of pruner=none with them."
)


def test_a_thing_is_said_once_for_all_runs(make_run: Any, tmp_path: Path) -> None:
    judge = {"reason": "Rules stood in."}
    make_run("a", pruner="none", value=0.5, notes=["One photo is absent."], judge=judge)
    make_run("b", pruner="ivcp", value=0.5, notes=["One photo is absent."] * 2, failed=3)
    make_run("c", pruner="ivcp", value=0.5, dataset="pope")
    runs, _ = find_runs([tmp_path])
    assert remarks(runs) == [
        "shapes: One photo is absent.",
        "shapes (1 of 2 runs): Rules stood in.",
        "shapes (1 of 2 runs): 3 of 200 samples failed and count as wrong.",
        f"pope: {ALONE}",
    ]


def test_missing_statistics_are_told_by_reason(make_run: Any, tmp_path: Path) -> None:
    for name in "abc":
        make_run(name, pruner="ivcp", value=0.5)
    runs, _ = find_runs([tmp_path])
    reasons = ("it is torn", "it is torn", "it is missing")
    unpaired = [Unpaired(run, reason) for run, reason in zip(runs, reasons, strict=True)]
    assert remarks(runs, unpaired) == [
        f"shapes: {ALONE}",
        f"shapes: no interval, no test: it is torn ({tmp_path / 'a'} and 1 more).",
        f"shapes: no interval, no test: it is missing ({tmp_path / 'c'}).",
    ]
