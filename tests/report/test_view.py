"""`ivcp view`: which runs are taken, the page, the browser; and the command of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ivcp.cli.main import main
from ivcp.report.rerun import command_of
from ivcp.results.load import find_runs


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that a browser was asked to open."""
    addresses: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: addresses.append(address) or False)
    return addresses


def make_three(make_run: Any) -> None:
    make_run("runs/none", pruner="none", value=0.9, ratio=1.0)
    make_run("runs/ivcp", pruner="ivcp", value=0.8, config={"pruner": {"layer": 4}})
    make_run("runs/fastv", pruner="fastv", value=0.5, config={"pruner": {"layer": 2}})


def test_the_page_is_written_and_opened(
    make_run: Any, tmp_path: Path, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    make_three(make_run)
    out = tmp_path / "new/out"
    assert main(["view", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == ["report.html"]
    assert opened == [(out / "report.html").as_uri()]
    assert "3 runs; " in (printed := capsys.readouterr().out)
    assert printed.endswith("no browser is here: copy the file, it is complete.\n")
    assert main(["view", str(tmp_path / "runs"), "--out", str(out), "--no-browser"]) == 0
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        (["pruner=ivcp"], ["none", "ivcp"]),
        (["pruner=*v*"], ["none", "ivcp", "fastv"]),
        (["pruner.layer=2"], ["none", "fastv"]),
        (["dataset=shapes", "ratio=0.5", "pruner=f*"], ["none", "fastv"]),
    ],
)
def test_conditions_keep_the_unpruned_run_beside_those_that_meet_them(
    make_run: Any, tmp_path: Path, conditions: list[str], names: list[str]
) -> None:
    make_three(make_run)
    words = [word for condition in conditions for word in ("--where", condition)]
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path), "--tables", *words]) == 0
    lines = (tmp_path / "table.csv").read_text().splitlines()
    pruner = lines[0].split(",").index("pruner")
    assert [line.split(",")[pruner] for line in lines[1:]] == names


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--where", "pruner"], "--where takes name=value"),
        (["--where", "prunr=ivcp"], "No run has a setting prunr; did you mean pruner or"),
        (["--where", "pruner=nobody"], "No run meets pruner=nobody."),
        (["--samples", "-1"], "--samples must be at least 0; got -1."),
    ],
)
def test_mistakes_are_a_sentence(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str],
    sentence: str,
) -> None:  # fmt: skip
    make_three(make_run)
    assert main(["view", str(tmp_path / "runs"), "--out", str(tmp_path), *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_command_is_what_was_typed_or_what_was_recorded(make_run: Any, tmp_path: Path) -> None:
    make_run("typed", pruner="ivcp", value=0.5, overrides=["pruner=ivcp", "a='b c'"])
    config = {
        "limit": 60, "seed": None, "pruner": {"_target_": "x.Y", "layers": [2, 6], "softmax": True},
        "dataset": {"task": "grounding", "root": None},
    }  # fmt: skip
    make_run(
        "untyped", pruner="ivcp", value=0.5, ratio=0.3, config=config, budget={"count": "flops"}
    )
    typed, untyped = (command_of(run.info) for run in find_runs([tmp_path])[0])
    assert typed == """ivcp run pruner=ivcp 'a='"'"'b c'"'"''"""
    assert untyped == (
        "ivcp run model=tiny pruner=ivcp dataset=shapes limit=60 budget=flops "
        "'pruner.layers=[2,6]' pruner.softmax=true dataset.task=grounding"
    )
