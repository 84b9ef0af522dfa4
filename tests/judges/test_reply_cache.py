from __future__ import annotations

import json
import multiprocessing
import os

import pytest

from ivcp.core.errors import UserError
from ivcp.judges.cache import ReplyCache

SETTINGS = {"model": "lab/grader:7b", "base_url": "http://localhost/v1"}


def written(folder, **replies: str):
    cache = ReplyCache(folder, SETTINGS)
    cache.open()
    for prompt, reply in replies.items():
        cache.put(prompt, reply)
    cache.close()
    return cache.path


def test_replies_are_there_for_the_next_process(tmp_path) -> None:
    path = written(tmp_path / "a" / "b", q="ja ✓\n2", empty="")
    again = ReplyCache(tmp_path / "a" / "b", SETTINGS)
    assert (again.get("q"), again.get("empty"), again.get("else")) == ("ja ✓\n2", "", None)
    assert path.name.startswith("lab-grader-7b-")
    assert path.stat().st_mode & 0o077 == 0
    assert ReplyCache(tmp_path / "a" / "b", {**SETTINGS, "temperature": 1.0}).get("q") is None


def test_a_torn_line_costs_only_itself(tmp_path) -> None:
    path = written(tmp_path, one="1", two="2")
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        written(tmp_path, three="3")
        cache = ReplyCache(tmp_path, SETTINGS)
        last = whole.rindex(b"}")
        assert cache.get("three") == "3"
        assert cache.get("one") == ("1" if length > whole.index(b"}") else None)
        assert cache.get("two") == ("2" if length > last else None)


def test_lines_of_another_kind_are_passed_over(tmp_path) -> None:
    path = written(tmp_path, one="1")
    with path.open("ab") as file:
        file.write(b'\xff\xfe\n[1]\n"text"\n{"prompt": 3, "reply": 4}\n{"reply": "x"}\nnull\n')
    assert ReplyCache(tmp_path, SETTINGS).get("one") == "1"


def write_many(folder, name: str) -> None:
    written(folder, **{f"{name}{number}": "x" * 3000 for number in range(100)})


def test_processes_write_side_by_side(tmp_path) -> None:
    spawn = multiprocessing.get_context("fork")
    writers = [spawn.Process(target=write_many, args=(tmp_path, name)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    (path,) = tmp_path.iterdir()
    lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    assert len(lines) == 300
    assert all(len(line["reply"]) == 3000 for line in lines)


@pytest.mark.parametrize("place", ["file/cache", "/proc/none/cache"])
def test_a_folder_that_cannot_be_used_costs_no_call(tmp_path, chat, judge, place) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be (read|written) at .*judge\.cache=FOLDER"):
        judge(cache=tmp_path / place).ask(["a"])
    assert not chat.requests


def test_a_full_disk(tmp_path, judge, chat, monkeypatch) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("ivcp.judges.cache.os.write", full)
    one = judge(workers=1)
    assert one.ask(["a", "b"])[0] == "a!"
    assert "No space left" in one.account()["last_problem"]


def test_a_full_cache_needs_no_writing(tmp_path, chat, judge) -> None:
    judge().ask(["a"])
    (path,) = (tmp_path / "cache").iterdir()
    path.chmod(0o400)
    path.parent.chmod(0o500)
    assert judge().ask(["a"]) == ["a!"]
    path.parent.chmod(0o700)
    assert len(chat.requests) == 1
