"""A judge behind any endpoint that speaks OpenAI's Chat Completions protocol."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
from anyio.from_thread import start_blocking_portal
from rich.console import Console
from rich.progress import Progress

from ivcp.core.errors import UserError
from ivcp.core.fields import check_fields
from ivcp.core.judge import Judge
from ivcp.judges.guarded_client import GuardedClient, is_local
from ivcp.judges.reply_cache import ReplyCache

FEW = 5
"""So many prompts are completed without a progress bar."""

GIVE_UP = 8
"""Failed prompts in a row, each tried again to the end, after which the judge stops."""

RETRIED = frozenset({408, 409, 429})
"""Statuses below 500 after which the `openai` package tries again; it does for all from 500 on."""

ABOUT_ONE_PROMPT = frozenset({400, 413, 422})
"""Statuses that concern the settings or the prompt (too long, filtered)."""


@dataclass(kw_only=True)
class OpenAIJudge(Judge):
    """Completes prompts by HTTP, several at a time, and keeps the replies on disk.

    Time-outs, lost connections, status 408, 409, 429 or 5xx and responses without a completion are
    tried again, after 0.5, 1, 2, ... 8 seconds or when the server says. A prompt without a reply
    gets None and the others go on. `GIVE_UP` such prompts in a row end it, because an endpoint that
    is down, or a quota that is used up, would cost minutes a prompt. Any other status ends it at
    once, except that 400, 413 and 422 fail the one prompt if others have a reply. Replies that came
    until then are in the cache.

    Attributes:
        model: Name of the model at the endpoint.
        base_url: Address that `/chat/completions` is appended to.
        key_variable: Environment variable that holds the key; None if the endpoint wants none. An
            endpoint on this machine needs no key.
        key_over_http: Whether the key may go to another machine by unencrypted http.
        cache: Folder of the replies, which depend on the prompt, model, address, temperature and
            `max_tokens`; None keeps none.
        retries: Tries of a prompt beyond the first.
        timeout: Seconds after which a try is given up, however it went until then.
        requests_per_minute: Most requests, tries included; None for no limit.
        workers: Requests at a time.
        temperature: Of sampling; None leaves it out, for models that refuse it.
        max_tokens: Longest reply; None leaves it out, for models that refuse it.
        price_in: USD per million tokens of prompts; None if unknown.
        price_out: USD per million tokens of replies; None if unknown.

    Raises:
        UserError: A value can't be used.
    """

    model: str = "gpt-4o"
    base_url: str = "https://api.openai.com/v1"
    key_variable: str | None = "OPENAI_API_KEY"
    key_over_http: bool = False
    cache: str | Path | None = "~/.cache/ivcp/judge"
    retries: int = 6
    timeout: float = 60.0
    requests_per_minute: int | None = None
    workers: int = 8
    temperature: float | None = 0.0
    max_tokens: int | None = 64
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        check_fields(self, "judge.")
        self.base_url = _address(self.base_url)
        if self.key_variable is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.key_variable):
            raise UserError(
                "judge.key_variable must be the name of an environment variable that holds the "
                "key, such as OPENAI_API_KEY; got what may be the key itself."
            )
        least = {"retries": 0, "workers": 1, "requests_per_minute": 1, "max_tokens": 1}
        for name, bound in least.items():
            if (value := getattr(self, name)) is not None and value < bound:
                raise UserError(f"judge.{name} must be at least {bound}; got {value}.")
        if self.timeout <= 0:
            raise UserError(f"judge.timeout must be more than 0 seconds; got {self.timeout}.")
        self._next_start = 0.0
        self._counts: Counter[str] = Counter()
        self._last_error: str | None = None
        self._failed_in_a_row = 0

    def missing(self) -> str | None:
        """A sentence if the key is missing, or one that can't or shouldn't be sent."""
        key, name = self._key(), self.key_variable
        local = is_local(self.base_url)
        if not key and name is not None and not local:
            return (
                f"No key in {name}: export that variable, name another one with "
                "judge.key_variable=NAME, or choose another endpoint with judge.base_url=URL."
            )
        if not re.fullmatch(r"[!-~]*", key):
            return f"The key in {name} holds blanks or other characters that no key has: export it."
        if key and not local and not self.key_over_http and not self.base_url.startswith("https:"):
            return (
                f"The key in {name} would go to {self.base_url} unencrypted: use an https address, "
                "or judge.key_variable=null to send no key, or judge.key_over_http=true to send it "
                "all the same."
            )
        return None

    def complete(self, prompts: Sequence[str]) -> list[str | None]:
        """The reply to each prompt; equal prompts are sent once, cached ones not at all.

        If the endpoint fails midway, the replies until then are used; `account` has the reason.

        Raises:
            UserError: There is no key, the endpoint refuses or never replies to any, or the cache
                cannot be read or written.
        """
        if reason := self.missing():
            raise UserError(reason)
        with start_blocking_portal() as portal:  # a thread, as notebooks have a loop of their own
            replies = portal.call(self._complete, list(dict.fromkeys(prompts)))
        return [replies.get(prompt) for prompt in prompts]

    def account(self) -> dict[str, Any]:
        """What this object has done so far, over all calls of `complete`.

        `sent` and `from_cache` count distinct prompts, `failed` those of `sent` without a reply,
        `retries` the tries beyond the first. Tokens and the cost in USD are those of the replies
        that came now, not of cached ones; the cost is None without prices or where a server gave no
        token counts.
        """
        counts = self._counts
        names = ("sent", "from_cache", "failed", "retries", "prompt_tokens", "completion_tokens")
        cost = None
        if self.price_in is not None and self.price_out is not None and not counts["unmetered"]:
            cost = counts["prompt_tokens"] * self.price_in / 1e6
            cost += counts["completion_tokens"] * self.price_out / 1e6
        return {
            "model": self.model,
            "base_url": self.base_url,
            **{name: counts[name] for name in names},
            "cost": cost,
            "last_error": self._last_error,
        }

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "").strip() if self.key_variable else ""

    def _settings(self) -> dict[str, Any]:
        """What a request holds beside the prompt."""
        temperature = None if self.temperature is None else float(self.temperature)
        optional = {"temperature": temperature, "max_tokens": self.max_tokens}
        return {"model": self.model, **{k: v for k, v in optional.items() if v is not None}}

    async def _complete(self, prompts: Sequence[str]) -> dict[str, str]:
        """The replies that there are, by prompt."""
        cache = ReplyCache(self.cache, {"base_url": self.base_url, **self._settings()})
        try:
            new = [prompt for prompt in prompts if cache.get(prompt) is None]
            self._counts["from_cache"] += len(cache.replies)
            if new:
                cache.check_writable()
                await self._send_all(new, cache)
        except UserError as error:
            if not cache.replies:
                raise
            self._last_error = str(error)
        finally:
            cache.close()
        return cache.replies

    async def _start_try(self, retry: int) -> None:
        """Wait until one more request may start, and count it."""
        start = max(time.monotonic(), self._next_start)
        self._next_start = start + 60 / (self.requests_per_minute or float("inf"))
        await asyncio.sleep(start - time.monotonic())
        self._counts["retries" if retry else "sent"] += 1

    async def _send_all(self, prompts: Sequence[str], cache: ReplyCache) -> None:
        """Send prompts until all are done or the endpoint fails."""
        for name in ("openai", "httpx2", "httpcore2"):  # they would log what the server sends
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            http = GuardedClient(self.base_url, self._key(), self.timeout, self._start_try)
        except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:
            raise UserError(
                "The judge cannot use the proxies or certificates that environment variables such "
                f"as HTTPS_PROXY, ALL_PROXY or SSL_CERT_FILE name ({type(error).__name__}): change "
                "them; a SOCKS proxy needs the package socksio."
            ) from error
        client = openai.AsyncOpenAI(
            api_key="(GuardedClient sends it)",
            base_url=self.base_url,
            max_retries=self.retries,
            timeout=None,  # GuardedClient has the deadline
            http_client=http,
        )
        self._failed_in_a_row = 0
        queue = iter(prompts)
        bar = Progress(console=Console(stderr=True), disable=len(prompts) <= FEW)
        async with client:
            with bar:
                task = bar.add_task("judging", total=len(prompts))

                async def work() -> None:
                    for prompt in queue:
                        await self._send(prompt, client, cache)
                        bar.advance(task)

                workers = [asyncio.create_task(work()) for _ in range(self.workers)]
                try:
                    await asyncio.gather(*workers)
                finally:
                    for worker in workers:
                        worker.cancel()
                    await asyncio.wait(workers)

    async def _send(self, prompt: str, client: openai.AsyncOpenAI, cache: ReplyCache) -> None:
        """Get one reply into the cache, if that is possible.

        Raises:
            UserError: The endpoint refuses or has failed too often, or the cache can't be written.
        """
        # Half a surrogate pair is no text that can be sent.
        content = prompt.encode("utf-8", "replace").decode("utf-8")
        create: Any = client.chat.completions.create  # its overloads know no optional settings
        try:
            completion = await create(
                messages=[{"role": "user", "content": content}], **self._settings()
            )
        except openai.OpenAIError as error:
            self._counts["failed"] += 1
            self._failed_in_a_row += 1
            self._last_error, status = str(error.__cause__ or error), 500
            if isinstance(error, openai.APIStatusError):
                status = error.status_code
                message = error.response.json()["error"]["message"]  # GuardedClient's
                self._last_error = f"status {status}: {message}"
            of_prompt = status in ABOUT_ONE_PROMPT and bool(cache.replies)
            refused = status < 500 and status not in RETRIED and not of_prompt
            judge = f"The judge {self.model} at {self.base_url}"
            if refused:
                raise UserError(
                    f"{judge} refuses ({self._last_error}); check judge.model, judge.base_url and "
                    f"judge.key_variable={self.key_variable}."
                ) from error
            if self._failed_in_a_row >= GIVE_UP:
                raise UserError(
                    f"{judge} left {GIVE_UP} prompts in a row without a reply (the last error: "
                    f"{self._last_error}); try again later: its replies are kept in judge.cache."
                ) from error
            return
        self._failed_in_a_row = 0
        read, written = completion.usage.prompt_tokens, completion.usage.completion_tokens
        self._counts["prompt_tokens"] += read or 0
        self._counts["completion_tokens"] += written or 0
        self._counts["unmetered"] += None in (read, written)
        cache.put(prompt, completion.choices[0].message.content)


def _address(base_url: str) -> str:
    """A base address without a slash at its end.

    Raises:
        UserError: It is no address, or one with a secret in it, which records would show.
    """
    address = base_url.rstrip("/")
    try:
        host = httpx2.URL(address).host.encode("idna")
    except (httpx2.InvalidURL, UnicodeError):
        host = b""
    if not host or not re.fullmatch(r"https?://[!-~]+", address) or set("@?#") & set(address):
        raise UserError(
            "judge.base_url must be an address such as https://api.openai.com/v1, without a user, "
            "password or query, for these would be written into records; got another one."
        )
    return address
