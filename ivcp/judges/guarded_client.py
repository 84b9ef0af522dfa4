"""An HTTP client that trusts no server, for the `openai` package to send its requests with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

import httpx2
from openai import DefaultAsyncHttpxClient

MAX_BYTES = 1 << 20
"""Longest response; a longer one is a failed try, for a flood must not fill the memory."""

MAX_MESSAGE = 300
"""Most characters of a server's message in records and on the screen."""

SENT_HEADERS = frozenset({"host", "accept", "connection", "content-length", "content-type"})


class GuardedClient(DefaultAsyncHttpxClient):
    """Sends each try of a chat completion, and returns what was checked of its response.

    That is the text and the token counts of a completion, or the message of an error, both without
    the key. A try has a deadline and its response a size limit; a redirect, which could carry the
    key to another host, is not followed.

    Args:
        base_url: Where requests go; environment variables name no proxy to this machine itself.
        key: Sent as a bearer token; empty for none.
        deadline: Seconds from the start of a try to the last byte of its response.
        before_try: Awaited before each try; its argument is the number of tries before this one.
    """

    def __init__(
        self, base_url: str, key: str, deadline: float, before_try: Callable[[int], Awaitable[None]]
    ) -> None:
        super().__init__(follow_redirects=False, trust_env=not is_local(base_url))
        self._key, self._deadline, self._before_try = key, deadline, before_try

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send one try.

        Raises:
            httpx2.RequestError: There is no usable response; the `openai` package tries again.
        """
        await self._before_try(int(request.headers["x-stainless-retry-count"]))
        # The openai package adds what OPENAI_ORG_ID and OPENAI_CUSTOM_HEADERS hold.
        for name in set(request.headers) - SENT_HEADERS:
            del request.headers[name]
        request.headers.update({"User-Agent": "ivcp", "Accept-Encoding": "identity"})
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        try:
            return await asyncio.wait_for(self._exchange(request), self._deadline)
        except asyncio.TimeoutError:
            message = f"timed out, no complete response within {self._deadline:g} seconds"
            raise httpx2.ReadTimeout(message) from None
        except httpx2.RequestError as error:  # may quote what the server sent
            message = self._message(f"{type(error).__name__}: {error}")
            raise httpx2.RequestError(message) from None

    async def _exchange(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().send(request, stream=True)
        body = bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise httpx2.ReadError(f"a response of more than {MAX_BYTES:,} bytes")
        finally:
            await response.aclose()
        text = body.decode("utf-8", "replace")
        if response.is_success:
            content = self._completion(text)
        else:
            content = {"error": {"message": self._message(error_message(text))}}
        headers = {**response.headers, "content-type": "application/json"}
        return httpx2.Response(response.status_code, headers=headers, json=content, request=request)

    def _completion(self, body: str) -> dict[str, Any]:
        try:
            content = json.loads(body)
            text = content["choices"][0]["message"]["content"]
            if not isinstance(text, str):
                raise TypeError(type(text))
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise httpx2.DecodingError(f"no completion in {error_message(body)}") from error
        # Half a surrogate pair is no text that can be written.
        text = self._without_key(text.encode("utf-8", "replace").decode("utf-8"))
        counts = usage if isinstance(usage := content.get("usage"), dict) else {}
        tokens = {name: counts.get(name) for name in ("prompt_tokens", "completion_tokens")}
        usage = {n: v if type(v) is int and 0 <= v < 1e9 else None for n, v in tokens.items()}
        return {"choices": [{"message": {"content": text}}], "usage": usage}

    def _without_key(self, text: str) -> str:
        """The text with the key masked; short ones, such as "EMPTY", are no secrets."""
        return text.replace(self._key, "***") if len(self._key) >= 8 else text

    def _message(self, text: str) -> str:
        """A short text without control codes and without the key, also where a server masks it."""
        printable = "".join(c if c.isprintable() else " " for c in self._without_key(text))
        words = ("***" if "***" in word else word for word in printable.split())
        return " ".join(words)[:MAX_MESSAGE]


def error_message(body: str) -> str:
    """The message of a server's error; the whole body where it isn't in the usual place.

    >>> error_message('{"error": {"message": "No such model.", "code": 7}}')
    'No such model'
    """
    message = body
    try:
        content = json.loads(body)
        for name in ("error", "message", "detail"):
            content = content.get(name, content) if isinstance(content, dict) else content
        message = content if isinstance(content, str) else json.dumps(content)
    except (ValueError, RecursionError):
        pass  # no JSON: the text as it is
    return message.strip().rstrip(".") or "an empty response"


def is_local(base_url: str) -> bool:
    """Whether an address is this machine.

    >>> is_local("http://localhost:8000/v1"), is_local("https://api.openai.com/v1")
    (True, False)
    """
    host = httpx2.URL(base_url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
