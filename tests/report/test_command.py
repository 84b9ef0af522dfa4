"""The command line: files, exit codes, sentences."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ivcp.report.__main__ import main


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
    assert sorted(path.name for path in out.iterdir()) == ["pareto.png", "table.csv", "table.md"]
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "not complete JSON" in printed.err
    assert "2 runs, 1 repeated unpruned left out, 1 skipped" in printed.out
    assert "fastv" in printed.out
    assert "50.0" in printed.out


@pytest.mark.parametrize("content", [None, "{"])
def test_no_run_at_all_is_exit_code_2(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content:
        (tmp_path / "metrics.json").write_text(content)
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "No finished run was found" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_exit_code_2(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run("a", pruner="none", value=0.9)
    (tmp_path / "file").write_text("")
    assert main([str(folder), "--out", str(tmp_path / "file")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_the_module_runs_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ivcp.report", str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr
