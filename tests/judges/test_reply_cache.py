from __future__ import annotations

import multiprocessing
import os
import pickle
import sqlite3

import pytest
from chat_server import refusal

from ivcp.core.errors import UserError
from ivcp.judges.reply_cache import ReplyCache

SETTINGS = {"model": "lab/grader:7b", "base_url": "http://localhost/v1"}


def write(folder, **replies: str):
    cache = ReplyCache(folder, SETTINGS)
    for prompt, reply in replies.items():
        cache.put(prompt, reply)
    cache.close()


def test_replies_are_there_for_the_next_process(tmp_path) -> None:
    folder = tmp_path / "a" / "b"
    write(folder, q="ja ✓\n2", empty="")
    again = ReplyCache(folder, SETTINGS)
    assert (again.get("q"), again.get("empty"), again.get("else")) == ("ja ✓\n2", "", None)
    assert again.replies == {"q": "ja ✓\n2", "empty": ""}
    assert (folder / "replies.sqlite").stat().st_mode & 0o077 == 0
    assert ReplyCache(folder, {**SETTINGS, "temperature": 1.0}).get("q") is None


def write_many(folder, name: str) -> None:
    for number in range(20):  # opened each time, as by many runs that start together
        write(folder, **{f"{name}{number}": name * 3000, "same": "s"})


def test_processes_write_side_by_side(tmp_path) -> None:
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=write_many, args=(tmp_path, name)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    cache = ReplyCache(tmp_path, SETTINGS)
    for name in "abcd":
        assert [cache.get(f"{name}{number}") for number in range(20)] == [name * 3000] * 20
    assert cache.get("same") == "s"


@pytest.mark.parametrize("folder", ["file/cache", "/proc/none/cache", "~nobody-of-that-name/cache"])
def test_a_folder_that_cannot_be_used_costs_no_call(tmp_path, chat, judge, folder) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be read or written at .*judge\.cache=FOLDER"):
        judge(cache=tmp_path / folder if folder[0] != "~" else folder).complete(["a"])
    assert not chat.requests


@pytest.mark.parametrize("content", [b"\x80\x04pickle", b"x" * 9000, "half", "other table"])
def test_a_damaged_or_foreign_file_is_one_sentence(tmp_path, chat, judge, content) -> None:
    judge().complete([f"{number}" * 500 for number in range(9)])
    sent = len(chat.requests)
    path = tmp_path / "cache" / "replies.sqlite"
    if content == "half":
        path.write_bytes(path.read_bytes()[:6000])
    elif content == "other table":
        path.unlink()
        sqlite3.connect(path).execute("CREATE TABLE replies (x)")
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read or written at .*judge\.cache=FOLDER"):
        judge().complete([f"{number}" * 500 for number in range(9)])
    assert len(chat.requests) == sent


def test_the_lines_of_an_older_cache_are_left_alone(tmp_path, judge) -> None:
    older = tmp_path / "cache" / "grader-0.jsonl"
    older.parent.mkdir()
    older.write_text("{}\n")
    assert judge().complete(["a"]) == ["a!"]
    assert older.read_text() == "{}\n"


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("value", [pickle.dumps(Evil()), 3, None, 1.5])
def test_what_is_no_text_is_no_reply(tmp_path, chat, judge, monkeypatch, value) -> None:
    monkeypatch.chdir(tmp_path)
    judge().complete(["a"])
    file = sqlite3.connect(tmp_path / "cache" / "replies.sqlite")
    with file:
        assert file.execute("UPDATE replies SET reply = ?", (value,)).rowcount == 1
    assert judge().complete(["a"]) == ["a!"]
    assert len(chat.requests) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_full_disk(judge, monkeypatch) -> None:
    judge().complete(["earlier"])
    connect = sqlite3.connect

    def almost_full(*args, **kwargs):
        file = connect(*args, **kwargs)
        (pages,) = file.execute("PRAGMA page_count").fetchone()
        file.execute(f"PRAGMA max_page_count = {pages}")
        return file

    monkeypatch.setattr("ivcp.judges.reply_cache.sqlite3.connect", almost_full)
    one = judge(workers=1)
    replies = one.complete(["a" * 9000, "b" * 9000])
    assert replies == ["a" * 9000 + "!", None]
    assert "database or disk is full" in one.account()["last_error"]


def test_a_full_cache_needs_no_writing_and_one_that_cannot_be_written_costs_no_call(
    tmp_path, chat, judge, monkeypatch
) -> None:
    judge().complete(["a"])
    connect = sqlite3.connect
    monkeypatch.setattr(  # as root may write to files that are read-only
        "ivcp.judges.reply_cache.sqlite3.connect",
        lambda path, **kwargs: connect(f"file:{path}?mode=ro", uri=True, **kwargs),
    )
    assert judge().complete(["a"]) == ["a!"]
    with pytest.raises(UserError, match="readonly database"):
        judge().complete(["b"])
    assert len(chat.requests) == 1


def test_failures_are_not_kept(chat, judge) -> None:
    chat.script = lambda number, prompt: refusal(500, "oops") if number < 2 else None
    assert judge(retries=1).complete(["a"]) == [None]
    assert judge().complete(["a"]) == ["a!"]
