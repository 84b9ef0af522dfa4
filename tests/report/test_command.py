"""The command line: files, exit codes, sentences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ivcp.core.metric import ScoredAnswer
from ivcp.metrics.group_metrics import GroupMetrics
from ivcp.metrics.multiple_choice import MultipleChoiceMetrics
from ivcp.report.__main__ import main

FILES = ["figures", "pareto.png", "report.html", "table.csv", "table.md", "table.tex"]


def test_files_are_written_and_skipped_ones_counted(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("runs/0", pruner="none", value=0.9)
    make_run("runs/1", pruner="none", value=0.9)
    make_run("runs/2", pruner="fastv", value=0.45)
    (tmp_path / "runs/torn").mkdir()
    (tmp_path / "runs/torn/metrics.json").write_text('{"metrics": {')
    out = tmp_path / "new/folder"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "is not the result of a run" in printed.err
    assert "2 runs, 1 repeated left out, 1 skipped" in printed.out
    assert "fastv" in printed.out
    assert "50.0" in printed.out
    assert "predictions.jsonl is missing" in printed.out


def make_pair(make_scored: Any) -> None:
    group = GroupMetrics({name: {"metric": MultipleChoiceMetrics()} for name in ("one", "two")})
    for pruner, right in (("none", 1.0), ("ivcp", 0.0)):
        answers = [ScoredAnswer("A", "A", right, {"task": name}) for name in ("one", "two") * 6]
        notes = ["Rules stood in."]
        make_scored(f"runs/{pruner}", group, answers, pruner=pruner, dataset="both", notes=notes)


def test_a_group_has_its_table(
    make_scored: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pair(make_scored)
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    names = sorted([*FILES, "groups.csv", "groups.md"])
    assert sorted(path.name for path in out.iterdir()) == names
    page = (out / "report.html").read_text(encoding="utf-8")
    for shown in ("both · tiny", "0.0 (0.0)*", "both: Rules stood in.", "(4 rows)"):
        assert page.count(shown) >= 1
    printed = capsys.readouterr().out
    assert "0.0 (0.0)*" in printed
    assert "-100.0 [-100.0, -100.0]" in printed
    assert "groups.csv, groups.md, pareto.png, figures/ and report.html are in" in printed
    for text in (printed, (out / "table.md").read_text()):
        assert text.count("both: Rules stood in.") == 1
        assert text.count("McNemar") == 1


def test_statistics_can_be_left_out(
    make_scored: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pair(make_scored)
    for path in tmp_path.glob("runs/*/predictions.jsonl"):
        path.unlink()
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--no-paired"]) == 0
    printed = capsys.readouterr().out
    assert "0.0 (0.0)" in printed
    assert "-100.0" in printed
    for absent in ("McNemar", "[-100.0", "*", "missing"):
        assert absent not in printed


@pytest.mark.parametrize("content", [None, "{"])
def test_no_run_at_all_is_exit_code_2(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content:
        (tmp_path / "metrics.json").write_text(content)
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "No finished run was found" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_exit_code_2(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("a", pruner="none", value=0.9)
    (tmp_path / "file").write_text("")
    assert main([str(folder), "--out", str(tmp_path / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_tables_can_stand_alone(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="none", value=0.9)
    assert main([str(tmp_path / "a"), "--out", str(tmp_path / "out"), "--tables"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["table.csv", "table.md", "table.tex"]


def test_tables_stay_away_where_it_is_quiet(make_run: Any, tmp_path: Path, capsys: Any) -> None:
    make_run("a", pruner="ivcp", value=0.5)
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--tables", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert printed == f"1 run; table.csv, table.md and table.tex are in {tmp_path / 'out'}.\n"


def test_tables_need_none_of_the_slow_libraries() -> None:
    code = (
        "import sys, ivcp.report.__main__;"
        "slow = {'torch', 'torchmetrics', 'pandas', 'scipy', 'matplotlib'};"
        "sys.exit(', '.join(slow & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_module_runs_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ivcp.report", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_conditions_choose_runs_and_keep_their_baselines(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dataset in ("pope", "shapes"):
        make_run(f"runs/{dataset}", pruner="none", value=0.9, ratio=1.0, dataset=dataset)
        for ratio in (0.5, 0.1):
            name = f"runs/{dataset}{ratio}"
            make_run(name, pruner="ivcp", value=ratio, ratio=ratio, dataset=dataset)
    command = [str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--tables", "--quiet"]
    assert main([*command, "--where", "dataset=pope", "--where", "ratio=0.5"]) == 0
    assert "2 runs, 4 not asked for" in capsys.readouterr().out
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.startswith("Settings of all runs: model tiny, dataset pope,")
    assert "| IVC-Prune | 0.5 | 50.0 | 55.6 |" in text
    for condition, sentence in (
        ("datset=x", "did you mean dataset"),
        ("ratio=7", "No run meets"),
        ("x", "="),
    ):
        assert main([*command, "--where", condition]) == 2
        assert sentence in capsys.readouterr().err
