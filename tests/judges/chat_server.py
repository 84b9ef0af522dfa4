"""A real server that speaks Chat Completions, and plays every kind of trouble."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "K3y-of-the-house-42"


@dataclass(frozen=True)
class Told:
    """What the server sends; `body` may be cut, `length` may lie."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


def completion(text: Any, usage: Any = None) -> Told:
    told = {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}
    return Told(body=json.dumps(told).encode())


def refusal(status: int, message: str, **headers: str) -> Told:
    body = json.dumps({"error": {"message": message, "type": "test"}}).encode()
    return Told(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


USAGE = {"prompt_tokens": 10, "completion_tokens": 2}
HANG, RESET = object(), object()


class Chat(ThreadingHTTPServer):
    """Replies "<prompt>!", unless `script` (called with the number of the call) says otherwise."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: Callable[[int, str], Any] = lambda number, prompt: None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.now = self.most = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    server: Chat

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.server
        with chat.lock:
            number = len(chat.requests)
            chat.requests.append({**body, "path": self.path})
            chat.headers.append(dict(self.headers))
            chat.now += 1
            chat.most = max(chat.most, chat.now)
        prompt = body["messages"][0]["content"]
        told = chat.script(number, prompt)
        with chat.lock:
            chat.now -= 1
        if told is HANG:
            chat.closing.wait(5)
        elif told is RESET:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        else:
            self.send(told or completion(f"{prompt}!", USAGE))

    def send(self, told: Told) -> None:
        self.send_response(told.status)
        length = len(told.body) if told.length is None else told.length
        for name, value in {"Content-Length": str(length), **told.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(told.body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""
