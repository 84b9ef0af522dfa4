"""A hub that does not answer is found out in seconds; one that answers may say what it likes."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from ivcp.core.errors import UserError
from ivcp.models import hub_access
from ivcp.models.qwen25vl import PACKAGED, Qwen25VL

ABSENT = Qwen25VL(path="lab/absent-7b")


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The hub's library is not switched off, and waits for no second try."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it tries again"))
    hub_access._answers.cache_clear()
    yield
    hub_access._answers.cache_clear()


def hub_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers, as a blackhole does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class Status(BaseHTTPRequestHandler):
    """Answers each request with one status."""

    status = 404
    requests = 0

    def do_HEAD(self) -> None:
        type(self).requests += 1
        self.send_response(self.status)
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server that answers with `Status.status`."""
    Status.requests = 0
    with HTTPServer(("127.0.0.1", 0), Status) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


ELSEWHERE = r"check the name, or download it .*\(hf download lab/absent-7b\) and point model\.path"


def test_a_hub_that_never_answers(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_at(silent, monkeypatch)
    monkeypatch.setattr(hub_access, "PATIENCE", 0.3)
    started = time.monotonic()
    with pytest.raises(UserError, match=ELSEWHERE):
        ABSENT.depth()
    assert 0.3 <= time.monotonic() - started < 1


def test_a_name_that_is_looked_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    found = threading.Event()
    session = SimpleNamespace(head=lambda url, timeout: found.wait(5))
    monkeypatch.setattr("huggingface_hub.get_session", lambda: session)
    monkeypatch.setattr(hub_access, "PATIENCE", 0.1)
    started = time.monotonic()
    assert hub_access.cache_only("lab/model")
    assert time.monotonic() - started < 1
    found.set()


def test_a_hub_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    hub_at("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(UserError, match=ELSEWHERE):
        ABSENT.depth()


def test_a_gateway_that_has_no_way_to_the_hub(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_at(server, monkeypatch)
    monkeypatch.setattr(Status, "status", 503)
    with pytest.raises(UserError, match=ELSEWHERE):
        ABSENT.depth()
    assert Status.requests == 1


def test_a_model_that_the_hub_does_not_have(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_at(server, monkeypatch)
    monkeypatch.setattr(Status, "status", 404)
    with pytest.raises(UserError, match=r"check the name, your access to it") as caught:
        ABSENT.depth()
    assert "hf download" not in str(caught.value)


def test_the_hub_is_looked_for_once_in_a_while(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_at(server, monkeypatch)
    for now, requests in ((60.0, 1), (90.0, 1), (119.0, 1), (120.0, 2)):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        assert not hub_access.cache_only("lab/model")
        assert Status.requests == requests


def test_a_folder_and_a_hub_that_is_switched_off_need_no_request(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_at(server, monkeypatch)
    assert not hub_access.cache_only(str(PACKAGED))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        ABSENT.depth()
    assert Status.requests == 0


def test_what_is_cached_needs_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub_at("http://127.0.0.1:9", monkeypatch)
    snapshot = tmp_path / "models--lab--absent-7b" / "snapshots" / "0"
    shutil.copytree(PACKAGED, snapshot)
    (tmp_path / "models--lab--absent-7b" / "refs").mkdir()
    (tmp_path / "models--lab--absent-7b" / "refs" / "main").write_text("0")
    family = Qwen25VL(path="lab/absent-7b", dtype="float32")
    assert family.depth() == 8
    family.load()
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"could not be loaded .* download all of it where the hub"):
        family.load()
