"""The command `ivcp`: quick where nothing is computed, and helpful."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ivcp
from ivcp.cli.composing import config_folder
from ivcp.cli.main import COMMANDS, main

QUICK = """
import sys
from ivcp.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code or 0
heavy = {"torch", "transformers", "lightning", "pandas", "numpy", "matplotlib"} & set(sys.modules)
print(f"code {code}, heavy {sorted(heavy)}")
"""


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--help"], 0, "ivcp run --help"),
        (["run", "--help"], 0, "IVC-Prune"),
        (["run", "--cfg", "job"], 0, "keep_ratio: ${ratio}"),
        (["run", "pruner=ivpc"], 2, "did you mean ivc or ivcp?"),
        (["run", "+ratoi=0.3"], 2, "did you mean ratio?"),
        (["run", "metric=pope"], 2, "metric must be a mapping"),
        (["run", "pruner._target_=ivcp.pruners.fastv.FastW"], 2, "did you mean FastV?"),
        (["completion", "bash"], 0, "complete -o nospace"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_computes_nothing_imports_nothing_heavy(words, code, text, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUICK, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.endswith(f"code {code}, heavy []\n"), done.stderr
    assert text in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ivcp ", list(COMMANDS)),
        ("ivcp re", ["report"]),
        ("ivcp run pruner=fore", ["pruner=foreground"]),
        ("ivcp run pruner.cos", ["pruner.cos_share="]),
        ("ivcp run +experiment=co", ["+experiment=compare"]),
        ("ivcp report x", []),
    ],
)
def test_completion(line, words, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr(sys, "argv", ["ivcp"])
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out.split() == words


def test_help_shows_every_choice_with_a_line_on_it(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ivcp"])
    assert main(["run", "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"ivcp {ivcp.__version__}\n")
    lines = {
        line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith("  ")
    }
    for group in ("pruner", "model", "dataset", "experiment", "judge", "logger", "trainer"):
        for path in (config_folder() / group).glob("*.yaml"):
            assert lines[path.stem], path.stem
    assert {"ratio=0.5", "limit=null"} <= set(lines)


def test_the_list_names_signals_papers_classes_and_metrics(capsys) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for words in (
        "positions, values",
        "arXiv 2602.03060",
        "Qwen2VLForConditional",
        "Anls",
        "5,349",
    ):
        assert words in text


def test_mistakes_of_the_command_itself(capsys) -> None:
    assert main(["lsit"]) == 2
    assert "did you mean list?" in capsys.readouterr().err
    assert main(["completion", "tcsh"]) == 2
    assert "knows bash, zsh, fish; got 'tcsh'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["list", "pruners"])
    assert "expected pruner, model, dataset; got pruners" in capsys.readouterr().err


def test_a_command_line_without_a_command_is_a_run(monkeypatch, capsys, tmp_path) -> None:
    """Lightning starts the other processes of a run by its words alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ivcp"])
    assert main(["ratio=0.3", "--cfg", "job"]) == 0
    assert "ratio: 0.3" in capsys.readouterr().out


def test_a_slash_or_a_hundred_settings_name_one_folder(monkeypatch, tmp_path, capsys) -> None:
    from command import run_py

    monkeypatch.chdir(tmp_path)
    long = [f"+generation.bad_words_ids=[{','.join('[' + str(n) + ']' for n in range(90))}]"]
    code = run_py(
        "-m", "pruner=random,uniform", "dataset.size=1", "workers=0", "pictures=0", "trainer=cpu",
        "generation.max_new_tokens=1", "logger.name=a/b", *long, "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    folders = sorted(path.parent for path in Path("sweep").rglob("metrics.json"))
    assert [folder.parent for folder in folders] == [Path("sweep")] * 2
    assert [folder.name[:2] for folder in folders] == ["0,", "1,"]
    assert all(len(os.fsencode(folder.name)) <= 200 for folder in folders)
