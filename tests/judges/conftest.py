"""A judge of a local server that hardly waits before it tries again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chat_server import KEY, Chat

from ivcp.judges.openai import OpenAIJudge


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
def judge(chat, tmp_path, monkeypatch) -> Callable[..., OpenAIJudge]:
    """Makes judges of the server."""
    monkeypatch.setenv("HOUSE_KEY", KEY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.002)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.004)

    def make(**changes: Any) -> OpenAIJudge:
        settings: dict[str, Any] = {
            "model": "grader",
            "base_url": chat.url,
            "key_variable": "HOUSE_KEY",
            "cache": tmp_path / "cache",
            "workers": 1,
        }
        return OpenAIJudge(**{**settings, **changes})

    return make
