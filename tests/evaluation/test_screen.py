from __future__ import annotations

import io
from pathlib import Path

from made_results import CONFIG, made_results, unpruned_results
from rich.console import Console

from ivcp.core.printable import printable
from ivcp.evaluation.screen import notes, result_table, show_result
from ivcp.results.load import FinishedRun

RUN = FinishedRun(Path("sweep/1"), made_results(0.4))
PAIRED = FinishedRun(Path("sweep/0"), unpruned_results(0.5))
ALONE = FinishedRun(Path("other/0"), unpruned_results(0.5))


def cells(run: FinishedRun, baseline: FinishedRun | None) -> dict[str, list[str]]:
    screen = Console(file=io.StringIO(), width=100)
    screen.print(result_table(run, baseline))
    lines = [line.split("│") for line in screen.file.getvalue().splitlines() if "│" in line]
    return {line[1].strip(): [cell.strip() for cell in line[2:-1]] for line in lines}


def test_the_table_shows_both_runs_and_the_change() -> None:
    table = cells(RUN, PAIRED)
    assert table["acc@0.5"] == ["40.0 %", "50.0 %", "-10.0 pts"]
    assert table["KV cache"] == ["0.40 MB", "0.50 MB", "x 0.80"]
    assert table["pruning overhead"] == ["2.00 ms", "2.00 ms", "x 1.00"]


def test_times_of_runs_that_were_not_paired_are_not_compared() -> None:
    table = cells(RUN, ALONE)
    assert table["KV cache"] == ["0.40 MB", "0.50 MB", "x 0.80"]
    assert table["pruning overhead"] == ["2.00 ms", "-", ""]
    assert any("Times are not compared" in line for line in notes(RUN, ALONE))
    assert not any("Times are not compared" in line for line in notes(RUN, PAIRED))


def test_a_chosen_baseline_may_differ_and_the_difference_is_named() -> None:
    other = FinishedRun(Path("sweep/2"), unpruned_results(config={**CONFIG, "seed": 1}))
    lines = notes(RUN, other)
    assert "The unpruned run differs in seed: compare with care." in lines
    assert cells(RUN, other)["pruning overhead"] == ["2.00 ms", "-", ""]
    assert not any("differs in" in line for line in notes(RUN, PAIRED))


def test_failed_samples_and_the_baseline_are_named() -> None:
    assert notes(RUN, None)[0] == "3 samples, 1 failed; times are medians."
    assert "run pruner=none" in notes(RUN, None)[-1]
    assert "Unpruned: other/0." in notes(RUN, ALONE)
    assert len(notes(ALONE, None)) == 1


def test_names_and_messages_are_text(capsys) -> None:
    texts = [
        "[/old] a.tsv",
        "[bold]x[/bold]",
        "404 [INST] x [/INST] [/x]",
        "\x1b]0;t\x07\x1b[31mred\u202e",
    ]
    results = made_results(model="[red]m[/]", notes=texts)
    show_result(FinishedRun(Path("runs/a[/x]b"), results), None)
    out = capsys.readouterr().out
    for text in (*texts[:3], "[red]m[/]", "a[/x]b"):
        assert text in out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert printable("\x1b[31mred\u202e") == "red�"
