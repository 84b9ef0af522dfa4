"""Runs of run.py in processes that a server forks, with the imports behind them."""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def life(words: list[str], folder: Path, out: str) -> None:
    """What such a process does; it leads a session, so that all it starts can be found."""
    os.setsid()
    os.chdir(folder)
    screen = os.open(folder / out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(screen, stream)
    sys.argv = ["run.py", *words]
    runpy.run_path(str(ROOT / "run.py"), run_name="__main__")


def make_server() -> Any:
    """The server, ready to fork."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "hydra", "ivcp.cli.run", "ivcp.evaluation.evaluate", "ivcp.visualize.overlay",
            "ivcp.metrics.grounding", "ivcp.models.qwen25vl",
            "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
        ]
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # the server keeps it
        warm = context.Process(target=int)
        warm.start()
        warm.join()
    return context


def start(server: Any, folder: Path, *words: str, where: str = "hydra.run.dir") -> Any:
    """A process that runs run.py; what it prints goes into `said` beside the folder."""
    words = (*words, f"{where}={folder}")
    process = server.Process(target=life, args=([*words], folder.parent, "said"))
    process.start()
    return process


def end(process: Any, folder: Path) -> None:
    """Wait for a process that succeeds."""
    process.join()
    assert process.exitcode == 0, (folder.parent / "said").read_text()


def answered(folder: Path) -> set[bytes]:
    """Indices of the answers that are there; quicker than reading them."""
    numbers: set[bytes] = set()
    for file in folder.glob("predictions*.jsonl"):
        with suppress(FileNotFoundError):  # a run that goes on moves them
            numbers |= set(re.findall(rb'^{"index": ?(\d+)', file.read_bytes(), re.MULTILINE))
    return numbers


def wait_for_answers(process: Any, folder: Path, more: int, seconds: float = 300) -> None:
    """Until there are so many more answers, or so much time has gone by."""
    until, number = time.monotonic() + seconds, len(answered(folder)) + more
    while process.is_alive() and len(answered(folder)) < number and time.monotonic() < until:
        time.sleep(0.02)


def session(leader: int) -> list[int]:
    """Ids of the live processes of a session."""
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                members.append(int(path.parent.name))
    return members
