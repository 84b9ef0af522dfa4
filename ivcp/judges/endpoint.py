"""One call of the Chat Completions protocol, and what can go wrong with it."""

from __future__ import annotations

import http.client
import json
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

PASSING = frozenset({408, 409, 429})
"""Statuses below 500 that another try may mend; all from 500 on may."""

QUOTED = 300
"""Most characters of a server's message that are told."""


class PassingError(Exception):
    """A call came to nothing for a reason that may pass.

    Attributes:
        retry_after: Seconds after which the server wants to be asked again, if it says so.
    """

    def __init__(self, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class RefusalError(Exception):
    """The endpoint won't answer this request however often it is asked.

    Attributes:
        status: The HTTP status.
    """

    def __init__(self, status: int, problem: str) -> None:
        super().__init__(problem)
        self.status = status


@dataclass(frozen=True)
class Completion:
    """A model's reply.

    Attributes:
        text: What it says.
        prompt_tokens: Tokens that were read; None if the server doesn't say.
        completion_tokens: Tokens that were written; None if the server doesn't say.
    """

    text: str
    prompt_tokens: int | None
    completion_tokens: int | None


class Plain(urllib.request.HTTPErrorProcessor):
    """Hands over every response as it came: a redirect would carry the key to another host."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


class Endpoint:
    """Where completions are to be had; problems are told without the key.

    Args:
        base_url: Address that `/chat/completions` is appended to.
        key: Sent as a bearer token; empty for none.
        timeout: Seconds of silence after which a call is given up.
    """

    def __init__(self, base_url: str, key: str, timeout: float) -> None:
        self.url = f"{base_url}/chat/completions"
        self.timeout = timeout
        self._key = key
        proxies = (urllib.request.ProxyHandler({}),) if is_local(base_url) else ()
        self._opener = urllib.request.build_opener(Plain, *proxies)

    def complete(self, body: Mapping[str, Any]) -> Completion:
        """Post a request and read the reply.

        Raises:
            PassingError: The reason may pass.
            RefusalError: It will not.
        """
        headers = {"Content-Type": "application/json", "User-Agent": "ivcp"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, json.dumps(body).encode("ascii"), headers)
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                status: int = response.status
                retry_after = _seconds(response.headers.get("Retry-After"))
                data: bytes = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise PassingError(self._safe(f"{type(error).__name__}: {error}")) from error
        if 200 <= status < 300:
            return self._completion(data)
        problem = f"status {status}: {self._safe(message(data))}"
        if status in PASSING or status >= 500:
            raise PassingError(problem, retry_after)
        raise RefusalError(status, problem)

    def _completion(self, data: bytes) -> Completion:
        try:
            told = json.loads(data)
            text = told["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            problem = f"no completion in the reply: {self._safe(message(data))}"
            raise PassingError(problem) from error
        if not isinstance(text, str):
            raise PassingError("a completion without text")
        usage = told.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        read, written = (
            count if isinstance(count := counts.get(name), int) else None
            for name in ("prompt_tokens", "completion_tokens")
        )
        # A lone surrogate cannot be written to any file.
        return Completion(text.encode("utf-8", "replace").decode("utf-8"), read, written)

    def _safe(self, text: str) -> str:
        """Text without the key, whole or masked as servers quote it."""
        hidden = text.replace(self._key, "***") if self._key else text
        return re.sub(r"[^\s\"']*\*{3,}[^\s\"']*", "***", hidden)[:QUOTED]


def message(data: bytes) -> str:
    """What a server says about an error; its whole words where they aren't in the usual place.

    >>> message(b'{"error": {"message": "No such model.", "code": 7}}')
    'No such model'
    """
    text = data.decode("utf-8", "replace")
    try:
        told = json.loads(text)
    except ValueError:
        told = text
    for name in ("error", "message", "detail"):
        if isinstance(told, dict):
            told = told.get(name, told)
    words = told if isinstance(told, str) else json.dumps(told)
    return " ".join(words.split()).rstrip(".") or "nothing said"


def is_local(base_url: str) -> bool:
    """Whether an address is this machine.

    >>> is_local("http://localhost:8000/v1"), is_local("https://api.openai.com/v1")
    (True, False)
    """
    host = urlsplit(base_url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seconds(text: str | None) -> float | None:
    """A Retry-After header; None for a date, which other clocks would have to share."""
    return float(text) if text and re.fullmatch(r"\d+(\.\d+)?", text.strip()) else None
