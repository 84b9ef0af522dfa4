"""A judge of a local server, with a clock that only sleeping moves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chat_server import KEY, Chat

from ivcp.judges.openai import OpenAIJudge
from ivcp.judges.pace import Pace


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now, self.slept, self.lock = 100.0, list[float](), threading.Lock()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.now += seconds
            self.slept.append(seconds)


@pytest.fixture
def chat() -> Iterator[Chat]:
    server = Chat()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def judge(chat, time, tmp_path, monkeypatch) -> Callable[..., OpenAIJudge]:
    """Makes judges of the server that don't really wait."""
    monkeypatch.setenv("HOUSE_KEY", KEY)

    def make(**changes: Any) -> OpenAIJudge:
        settings: dict[str, Any] = {
            "model": "grader",
            "base_url": chat.url,
            "key_variable": "HOUSE_KEY",
            "cache": tmp_path / "cache",
            "workers": 1,
        }
        made = OpenAIJudge(**{**settings, **changes})
        made.pace = Pace(made.requests_per_minute, time.clock, time.sleep)
        return made

    return make
