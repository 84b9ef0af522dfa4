"""A real server that speaks Chat Completions, and makes every kind of trouble."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "K3y-of-the-house-42"


@dataclass(frozen=True)
class Response:
    """What the server sends; `body` may be cut or come in chunks, `length` may lie."""

    status: int = 200
    body: bytes | Callable[[Chat], Iterable[bytes]] = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


def completion(text: Any, usage: Any = None) -> Response:
    content = {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}
    return Response(body=json.dumps(content).encode())


def refusal(status: int, message: str, **headers: str) -> Response:
    body = json.dumps({"error": {"message": message, "type": "test"}}).encode()
    return Response(status, body, {name.replace("_", "-"): text for name, text in headers.items()})


def drip(chat: Chat) -> Iterable[bytes]:
    """A byte now and then, until the test ends."""
    while not chat.closing.wait(0.05):
        yield b" "


def flood(chat: Chat) -> Iterable[bytes]:
    """More than fits into memory, as fast as it is taken."""
    while not chat.closing.is_set():
        chat.flooded += 1 << 20
        yield b" " * (1 << 20)


USAGE = {"prompt_tokens": 10, "completion_tokens": 2}
HANG, RESET = object(), object()


class Chat(ThreadingHTTPServer):
    """Replies "<prompt>!", unless `script` (called with the number of the call) decides."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: Callable[[int, str], Any] = lambda number, prompt: None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.now = self.most = self.flooded = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]

    def handle_error(self, *args: Any) -> None:
        """Clients that hang up are meant."""


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
        response = chat.script(number, prompt)
        with chat.lock:
            chat.now -= 1
        if response is HANG:
            chat.closing.wait(5)
        elif response is RESET:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        elif isinstance(response, bytes):  # what is no HTTP, perhaps
            self.wfile.write(response)
        else:
            self.send(response or completion(f"{prompt}!", USAGE))

    def do_GET(self) -> None:
        """What a redirect that is followed would do."""
        self.server.headers.append(dict(self.headers))
        self.send(Response())

    def send(self, response: Response) -> None:
        self.send_response(response.status)
        headers = dict(response.headers)
        if isinstance(response.body, bytes):
            length = len(response.body) if response.length is None else response.length
            headers = {"Content-Length": str(length), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(response.body, bytes):
            self.wfile.write(response.body)
        else:
            for chunk in response.body(self.server):
                self.wfile.write(chunk)

    def log_message(self, *args: Any) -> None:
        """Write no log."""
