"""Downloads from a server on this machine that can be as bad as servers are."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ivcp.core.errors import UserError
from ivcp.datasets import download
from ivcp.datasets.download import PartialFile, fetch

CONTENT = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@dataclass
class Server:
    """What the server does, and what it was asked.

    Attributes:
        content: The file.
        tag: Its ETag; None sends none.
        ranges: Whether it honours Range.
        conditions: Whether it honours If-Range.
        cuts: After how many bytes it breaks the connection, one a request; None serves all.
        kind: Content-Type.
        length: Whether it tells the length of what it sends.
        pause: Seconds between the first bytes and the rest, or the break.
        statuses: What it answers first instead of the file.
        asked: Headers of the requests.
    """

    content: bytes = CONTENT
    tag: str | None = '"one"'
    ranges: bool = True
    conditions: bool = True
    kind: str = "text/tab-separated-values"
    length: bool = True
    pause: float = 0.0
    cuts: list[int | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(dict(request.headers))
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        asked = request.headers["Range"] if self.ranges else None
        if self.conditions and request.headers["If-Range"] not in (None, self.tag):
            asked = None
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if first >= len(self.content):
            request.send_error(416)
            return
        request.send_response(206 if asked else 200)
        request.send_header("Content-Type", self.kind)
        body = self.content[first:]
        if asked:
            last = len(self.content) - 1
            request.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        if self.tag:
            request.send_header("ETag", self.tag)
        if self.length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        cut = self.cuts.pop(0) if self.cuts else None
        request.wfile.write(body[: 1 if cut is None else cut])
        request.wfile.flush()
        time.sleep(self.pause)
        if cut is None:
            request.wfile.write(body[1:])


@pytest.fixture
def server():
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.answer(self)

        def log_message(self, *_) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # the other side may hang up
    told.url = f"http://127.0.0.1:{http.server_port}/files/set.tsv"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield told
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch) -> None:
    monkeypatch.setattr(download, "WAITS", (0.0, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "new" / "set.tsv"


def begun(server, path, size: int) -> None:
    """A download that was given up after some bytes."""
    server.cuts = [size, 0, 0]
    with pytest.raises(UserError, match="the next start goes on from there"):
        fetch(server.url, path, ())
    assert path.with_name("set.tsv.part").stat().st_size == size
    server.asked.clear()


def left(path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


@pytest.mark.parametrize("tag", ['"one"', None])
@pytest.mark.parametrize("length", [True, False])
def test_a_file_arrives_whole_in_a_new_folder(server, path, tag, length) -> None:
    server.tag, server.length = tag, length
    fetch(server.url, path, [md5(OTHER), md5(CONTENT)])
    assert path.read_bytes() == CONTENT
    assert left(path) == ["set.tsv"]


def test_a_broken_connection_is_taken_up_again(server, path) -> None:
    server.cuts = [100_000, 50_000]
    fetch(server.url, path, [md5(CONTENT)])
    assert path.read_bytes() == CONTENT
    assert [asked.get("Range") for asked in server.asked] == [
        None, "bytes=100000-", "bytes=150000-",
    ]  # fmt: skip
    assert server.asked[1]["If-Range"] == '"one"'


def test_there_are_more_tries_as_long_as_something_new_arrives(server, path) -> None:
    server.cuts = [60_000, 60_000, 60_000, 60_000]
    fetch(server.url, path, ())
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("tag", ['"one"', None, 'W/"weak"'])
def test_a_later_call_goes_on(server, path, tag) -> None:
    server.tag = tag
    begun(server, path, 200_000)
    fetch(server.url, path, [md5(CONTENT)])
    assert path.read_bytes() == CONTENT
    assert [asked["Range"] for asked in server.asked] == ["bytes=200000-"]


def test_a_server_without_ranges_sends_all_again(server, path) -> None:
    begun(server, path, 200_000)
    server.ranges = False
    fetch(server.url, path, ())
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("content", [OTHER, OTHER[:100_000]], ids=["other", "shorter"])
def test_a_changed_file_is_fetched_from_its_beginning(server, path, conditions, content) -> None:
    begun(server, path, 200_000)
    server.content, server.tag, server.conditions = content, '"two"', conditions
    fetch(server.url, path, ())
    assert path.read_bytes() == content


def test_a_web_page_takes_the_place_of_nothing(server, path) -> None:
    begun(server, path, 200_000)
    server.ranges, server.kind = False, "text/html; charset=utf-8"
    with pytest.raises(UserError, match="a web page came instead"):
        fetch(server.url, path, ())
    assert path.with_name("set.tsv.part").stat().st_size == 200_000


def test_what_came_from_elsewhere_is_not_continued(server, path) -> None:
    begun(server, path, 200_000)
    fetch(server.url + "?mirror", path, ())
    assert path.read_bytes() == CONTENT
    assert "Range" not in server.asked[0]


def test_a_torn_label_begins_again(server, path) -> None:
    begun(server, path, 200_000)
    path.with_name("set.tsv.part.json").write_text('{"url": "ht')
    fetch(server.url, path, ())
    assert path.read_bytes() == CONTENT


def test_a_complete_part_is_not_fetched_again(server, path) -> None:
    path.parent.mkdir()
    part = PartialFile(path, server.url)
    part.begin(download.Version(server.url, '"one"', len(CONTENT)))
    part.file.write_bytes(CONTENT)
    fetch(server.url, path, [md5(CONTENT)])
    assert path.read_bytes() == CONTENT
    assert not server.asked


def test_a_file_that_is_there_is_left_alone(server, path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    fetch(server.url, path, ())
    assert path.read_text() == "mine"
    assert not server.asked


def test_what_may_pass_is_tried_again(server, path) -> None:
    server.statuses = [503, 429]
    fetch(server.url, path, ())
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_says_where_to_get_the_file_and_where_to_put_it(server, path, status) -> None:
    server.statuses = [status] * 9
    with pytest.raises(UserError) as caught:
        fetch(server.url, path, ())
    assert len(server.asked) == 1
    for part in (server.url, str(path), str(status)):
        assert part in str(caught.value)
    assert left(path) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/set.tsv", "set.tsv", "http://no such/a"])
def test_no_server_is_one_sentence(path, url) -> None:
    with pytest.raises(UserError, match=r"could not be fetched .* put it at"):
        fetch(url, path, ())
    assert left(path) == []


def test_another_sum_keeps_the_file_until_it_is_wanted(server, path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=f"{md5(OTHER)} of .*; got {md5(CONTENT)}") as caught:
            fetch(server.url, path, [md5(OTHER)])
    part = path.with_name("set.tsv.part")
    assert str(part) in str(caught.value)
    fetch(server.url, path, ())
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_full_disk_keeps_what_has_arrived(server, path, monkeypatch) -> None:
    real = download._chunks

    def then_full(response):
        yield next(real(response))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "CHUNK", 70_000)
    monkeypatch.setattr(download, "_chunks", then_full)
    with pytest.raises(UserError, match="No space left on device"):
        fetch(server.url, path, ())
    monkeypatch.setattr(download, "_chunks", real)
    size = path.with_name("set.tsv.part").stat().st_size
    assert 0 < size < len(CONTENT)
    fetch(server.url, path, [md5(CONTENT)])
    assert server.asked[-1]["Range"] == f"bytes={size}-"


def command(server, path) -> list[str]:
    code = (
        "import signal, sys; from pathlib import Path; from ivcp.datasets.download import fetch; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # off in a background job
        "fetch(sys.argv[1], Path(sys.argv[2]), [])"
    )
    return [sys.executable, "-c", code, server.url, str(path)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_loses_nothing(server, path, how) -> None:
    server.cuts, server.pause = [200_000], 60
    process = subprocess.Popen(command(server, path), stderr=subprocess.DEVNULL)
    part = path.with_name("set.tsv.part")
    while not (part.exists() and part.stat().st_size == 200_000):
        time.sleep(0.01)
        assert process.poll() is None
    os.kill(process.pid, how)
    process.wait()
    server.pause = 0
    fetch(server.url, path, [md5(CONTENT)])
    assert path.read_bytes() == CONTENT
    assert server.asked[-1]["Range"] == "bytes=200000-"
    assert left(path) == ["set.tsv"]


def test_two_processes_fetch_once(server, path) -> None:
    server.pause = 0.5
    one, two = (
        subprocess.Popen(command(server, path), stderr=subprocess.PIPE, text=True) for _ in "12"
    )
    told = [process.communicate()[1] for process in (one, two)]
    assert (one.returncode, two.returncode) == (0, 0), told
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert sum("waiting for another process" in text for text in told) == 1
    assert left(path) == ["set.tsv"]


def test_a_system_without_locks_does_without(server, path, monkeypatch) -> None:
    def absent(file: int, how: int) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr("fcntl.flock", absent)
    fetch(server.url, path, ())
    assert path.read_bytes() == CONTENT
