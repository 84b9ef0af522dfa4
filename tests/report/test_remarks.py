"""What is said under the tables, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ivcp.report.remarks import MOST, remarks, worse_than_random

ALONE = (
    "no unpruned run of the same model, data and settings is there to compare them with; report "
    "one of pruner=none with them."
)


def test_a_thing_is_said_once_for_all_runs(make_run: Any, read_entries: Any) -> None:
    judge = {"reason": "Rules stood in."}
    make_run("a", pruner="none", value=0.5, notes=["One photo is absent."], judge=judge)
    make_run("b", pruner="ivcp", value=0.5, notes=["One photo is absent."] * 2, failed_samples=3)
    make_run("c", pruner="ivcp", value=0.5, dataset="pope")
    assert remarks(read_entries()) == [
        "shapes: One photo is absent.",
        "shapes (1 of 2 runs): Rules stood in.",
        "shapes (1 of 2 runs): 3 of 200 samples failed and count as wrong.",
        f"pope: {ALONE}",
    ]


def test_many_notes_are_counted(make_run: Any, read_entries: Any) -> None:
    make_run("a", pruner="none", value=0.5, notes=[f"Note {n}." for n in range(MOST + 3)])
    *notes, last = remarks(read_entries())
    assert len(notes) == MOST
    assert last == "3 more notes are in the runs' metrics.json."


def test_missing_statistics_are_grouped_by_reason(
    make_run: Any, read_entries: Any, tmp_path: Path
) -> None:
    for name in "abc":
        make_run(name, pruner="ivcp", value=0.5)
    entries = read_entries()
    reasons = ("it is torn", "it is torn", "it is missing")
    unpaired = list(zip(entries, reasons, strict=True))
    assert remarks(entries, unpaired) == [
        f"shapes: {ALONE}",
        f"shapes: no interval, no test: it is torn ({tmp_path / 'a'} and 1 more).",
        f"shapes: no interval, no test: it is missing ({tmp_path / 'c'}).",
    ]


def test_who_loses_to_random_tokens_is_said(make_run: Any, read_entries: Any) -> None:
    make_run("none", pruner="none", value=0.1)
    for seed, value in enumerate((0.6, 0.8)):
        make_run(f"r{seed}", pruner="random", value=value, layers=[4], config={"seed": seed})
    make_run("deep", pruner="random", value=0.2, layers=[8])
    make_run("a", pruner="ivcp", value=0.65, layers=[4])
    make_run("b", pruner="fastv", value=0.1, layers=[2])
    make_run("c", pruner="dart", value=0.3, layers=[8])
    make_run("d", pruner="dart", value=0.1, ratio=0.1, layers=[4])
    (line,) = worse_than_random(read_entries())
    assert line == (
        "shapes, tiny: below random tokens of the same budget in acc@0.5: fastv at 50 % (-43.3), "
        "IVC-Prune at 50 % (-5.0)."
    )
