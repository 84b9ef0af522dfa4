"""Every command of the README runs as it stands there, on two samples, and so does its code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from command import run_py
from test_mdetr import write_mdetr, write_photos
from untrained import save_untrained
from wandb_files import forget_credentials

from ivcp.cli.main import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.partition(" #")[0].strip()
    for block in BLOCKS
    for line in block.splitlines()
    if line.startswith(("python ", "ivcp "))
]
RUNS = [
    command
    for command in COMMANDS
    if command.startswith(("python run.py", "ivcp run")) and "backend=vllm" not in command
]  # vLLM has tests of its own
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
LESS = ("limit=2", "pictures=1", "generation.max_new_tokens=3")
"""What makes the commands cheaper than they are; all of their own words stay."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """What stands for DIR in the README."""
    root = tmp_path_factory.mktemp("readme")
    write_photos(root / "photos")
    write_mdetr(root / "finetune_refcoco_testA.json")
    return {
        "model.path": save_untrained(root / "model", layers=4),
        "data.root": root,
        "data.coco": root / "photos",
    }


@pytest.mark.parametrize("command", RUNS)
def test_a_run(command, folders, tmp_path, monkeypatch, capfd) -> None:
    forget_credentials(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = [
        f"{word.removesuffix('DIR')}{folders[word.partition('=')[0]]}"
        if word.endswith("=DIR")
        else word
        for word in shlex.split(command)[2:]
    ]
    code = run_py(*words, *LESS)
    err = capfd.readouterr().err
    if "trainer=ddp" in words and torch.cuda.device_count() < 8:
        assert code == 2
        assert "The trainer cannot be used here" in err
        return
    assert code == 0, err
    assert list(tmp_path.rglob("metrics.json"))


def test_the_reports(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_py("-m", "pruner=none,random", "hydra.sweep.dir=multirun", *LESS) == 0
    for part, more in (("view", ["--no-browser"]), ("report", [])):
        (command,) = (c for c in COMMANDS if c.startswith(f"ivcp {part}"))
        assert main([*shlex.split(command)[1:], *more]) == 0
        (tmp_path / "report" / "report.html").unlink()


def test_the_measurement(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = (c for c in COMMANDS if c.startswith("ivcp bench"))
    less = ["repeats=1", "warmup=0", "new_tokens=2"]
    assert main([*shlex.split(command)[1:], *less]) == 0
    assert list(tmp_path.rglob("bench.json"))


def test_no_command_is_left_out() -> None:
    others = [command for command in COMMANDS if command not in RUNS]
    assert [command.split()[1] for command in others] == ["view", "report", "bench", "run"]
    assert len(RUNS) > 8


def test_the_code(tmp_path, monkeypatch, capsys) -> None:
    """The first snippet as it stands; the second one with the inputs of its question."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    first, second = SNIPPETS
    exec(first, names)
    assert "bbox_2d" in capsys.readouterr().out
    assert (tmp_path / "kept.png").exists()
    names["inputs"] = names["processor"].family.encode(names["processor"], [names["sample"]]).inputs
    exec(second, names)
    assert len(names["session"].kept[0]) == 72
