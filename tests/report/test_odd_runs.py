"""Odd files among runs: each costs one sentence at most, and never the tables of the others."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivcp.report.__main__ import main

SECONDS = 60
HUGE = 10**400
GRID = {"start": 5, "rows": 5, "columns": 6}
PREDICTION = {
    "index": 0, "id": "s", "task": "grounding", "question": "q", "answer": [1, 2, 3, 4],
    "parsed": [1, 2, 3, 4], "score": 1.0, "image_size": [60, 50], "visual_tokens": 30,
    "kept_tokens": 2, "images": [{"grids": [GRID]}], "kept": [6, 7], "reasons": {"ivc": [6, 7]},
}  # fmt: skip
DEEP: dict[str, Any] = {}
for _ in range(120):
    DEEP = {"a": DEEP}


def changed(*path: str, to: Any) -> Callable[[Path], None]:
    """Changes a value of a `metrics.json`."""

    def change(run: Path) -> None:
        results = json.loads((run / "metrics.json").read_text())
        *parents, last = path
        block = results
        for name in parents:
            block = block[name]
        block[last] = to
        (run / "metrics.json").write_text(json.dumps(results))

    return change


def predicted(**changes: Any) -> Callable[[Path], None]:
    """Changes values of a prediction, which is right without pruning and wrong with it."""
    return lambda run: (run / "predictions.jsonl").write_text(
        json.dumps({**PREDICTION, "score": 0, **changes}) + "\n"
    )


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes(content)


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Puts something else where a file is."""

    def replace(run: Path) -> None:
        path = run / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        make(path)

    return replace


def make_socket(path: Path) -> None:
    os.chdir(path.parent)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2_200_000_000)


def png(width: int, height: int) -> bytes:
    """An image whose file says that it has this size, whatever it holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def looped(path: Path) -> None:
    path.symlink_to(path.name)


VALUE, CONFIG = ("run", "primary_metric", "value"), ("run", "config")
SPECIAL: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo, "a folder": Path.mkdir, "a loop": looped, "a socket": make_socket,
    "2 GB": make_sparse, "endless": lambda path: path.symlink_to("/dev/zero"),
    "dangling": lambda path: path.symlink_to("/nowhere"),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "nothing": lambda path: path.write_bytes(b""),
    "UTF-16": lambda path: path.write_text("{}", encoding="utf-16"),
}  # fmt: skip
ODD: dict[str, Callable[[Path], object]] = {
    **{
        f"{name} is {kind}": replaced(name, make)
        for name in ("metrics.json", "predictions.jsonl", "pictures/000_x.png")
        for kind, make in SPECIAL.items()
    },
    "pictures is a pipe": replaced("pictures", os.mkfifo),
    "pictures is a loop": replaced("pictures", looped),
    "an image bomb": replaced("pictures/000_x.png", lambda p: p.write_bytes(png(60_000, 60_000))),
    "an image of no size": replaced("pictures/000_x.png", lambda p: p.write_bytes(png(0, 0))),
    "NaN": changed(*VALUE, to=float("nan")),
    "infinite": changed(*VALUE, to=float("inf")),
    "a number as text": changed(*VALUE, to="0.5"),
    "the largest number": changed(*VALUE, to=1e308),
    "the smallest number": changed(*VALUE, to=1e-320),
    "a value of 400 digits": changed(*VALUE, to=HUGE),
    "samples of 400 digits": changed("run", "samples", to=HUGE),
    "failures of 400 digits": changed("run", "failed_samples", to=HUGE),
    "a layer of 400 digits": changed("run", "layers", to=[HUGE]),
    "negative layers": changed("run", "layers", to=[-1]),
    "5,000 layers": changed("run", "layers", to=list(range(5000))),
    "a first pass of 400 digits": changed("run", "first_pass", to=HUGE),
    "tokens of 400 digits": changed("run", "budget", to={"tokens": HUGE}),
    "an endless budget": changed("run", "budget", to={"ratio": 1e308, "count": "flops"}),
    "another schema": changed("run", "schema_version", to=2),
    "a name of a megabyte": changed("run", "pruner", to="x" * 1_000_000),
    "a name of nothing": changed("run", "pruner", to=""),
    "a metric that is a command": changed("run", "primary_metric", "metric", to="os.system"),
    "a metric of another kind": changed(
        "run", "primary_metric", "metric", to="ivcp.metrics.mme.MmeMetrics"
    ),
    "settings as a text": changed(*CONFIG, to={"pruner": "text", "model": [], "trainer": 5}),
    "deep settings": changed(*CONFIG, to={"pruner": DEEP}),
    "settings of a megabyte": changed(*CONFIG, to={"seed": "x" * 1_000_000}),
    "a target that is none": changed(*CONFIG, to={"pruner": {"_target_": 5, "": {"": 1}}}),
    "frequencies without end": changed(
        "run", "rotary", to={"inverse_frequencies": [1e308] * 4, "axes": 3}
    ),
    "no frequencies": changed("run", "rotary", to={"inverse_frequencies": [], "axes": 1}),
    "other people's results": written("metrics.json", b'{"results": {"pope": {"acc": 0.8}}}'),
    "a list": written("metrics.json", b"[1, 2]"),
    "JSON of 100,000 brackets": written("metrics.json", b"[" * 100_000),
    "a torn file": written("metrics.json", b'{"run": {'),
    "an index of 400 digits": predicted(index=HUGE),
    "a score that is none": predicted(score="x"),
    "an answer of another kind": predicted(answer="x", parsed=5),
    "an endless box": predicted(parsed=[-1e308, 1e308, 0, 0]),
    "an image of a square kilometre": predicted(image_size=[10**9, 10**9]),
    "a huge grid": predicted(
        images=[{"grids": [{**GRID, "rows": 10**5, "columns": 10**5}]}], visual_tokens=10**10
    ),
    "a grid of 400 digits": predicted(images=[{"grids": [{**GRID, "rows": HUGE}]}]),
    "a grid before the prompt": predicted(images=[{"grids": [{**GRID, "start": -9}]}]),
    "a grid of no area": predicted(images=[{"grids": [{**GRID, "area": [0, 0, 0, 0]}]}]),
    "no grid": predicted(images=[{"grids": []}], visual_tokens=0),
    "a token before the prompt": predicted(kept=[-1]),
    "a token of 20 digits": predicted(kept=[10**19], reasons={"ivc": [10**19]}),
    "3,000 reasons": predicted(kept=[*range(3000)], reasons={f"r{n}": [n] for n in range(3000)}),
    "a line of 20 MB": written("predictions.jsonl", b'{"id": "' + b"x" * 20_000_000 + b'"}\n'),
    "other people's samples": written("predictions.jsonl", b'{"doc_id": 0, "resps": [["a"]]}\n'),
}  # fmt: skip


@pytest.fixture(autouse=True)
def alarm(tmp_path: Path) -> Iterator[None]:
    """Ends a test that hangs."""

    def end(*_: object) -> None:
        raise TimeoutError(f"Expected an end within {SECONDS} seconds.")

    folder = Path.cwd()
    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    os.chdir(folder)


@pytest.fixture
def runs(make_run: Any, tmp_path: Path) -> Path:
    """An unpruned run, a good one, and one that will be odd."""
    for name, pruner, value in (
        ("none", "none", 1.0),
        ("good", "fastv", 0.5),
        ("odd", "ivcp", 0.0),
    ):
        run = make_run(f"runs/{name}", pruner=pruner, value=value, samples=1)
        line = {**PREDICTION, "score": float(value == 1.0)}
        (run / "predictions.jsonl").write_text(json.dumps(line) + "\n")
    return tmp_path / "runs"


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("unpruned", [False, True], ids=["pruned", "unpruned"])
def test_an_odd_run_is_a_sentence_at_most(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, unpruned: bool
) -> None:
    if unpruned:
        shutil.rmtree(runs / "odd")
        (runs / "none").rename(runs / "odd")
    ODD[name](runs / "odd")
    kind = ["--tables"] if unpruned else []
    assert main([str(runs), "--out", str(tmp_path / "out"), *kind]) == 0
    printed = capsys.readouterr()
    table = (tmp_path / "out" / "table.csv").read_text()
    assert ",fastv," in table
    sentences = [line for line in printed.err.splitlines() if "odd" in line]
    assert len(sentences) == (f"{runs}/odd" not in table)
    assert all(re.fullmatch(r"\S.*[^.]\.", sentence) for sentence in sentences)
    assert "Traceback" not in printed.err


def test_nobody_else_is_asked(runs: Path, tmp_path: Path) -> None:
    """Of a folder with every odd run at once."""
    for number, make in enumerate(ODD.values()):
        shutil.copytree(runs / "good", odd := runs / f"odd{number}")
        make(odd)
    assert main([str(runs), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    assert f"{runs}/good" in (tmp_path / "out" / "table.csv").read_text()


def test_closed_files_are_left_out(
    runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.parent.name == "odd":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main([str(runs), "--out", str(tmp_path / "out"), "--tables", "--quiet"]) == 0
    assert "odd/metrics.json cannot be read (Permission denied)." in capsys.readouterr().err
