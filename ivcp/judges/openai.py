"""A judge behind any endpoint that speaks OpenAI's Chat Completions protocol."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ivcp.core.errors import UserError
from ivcp.core.judge import Judge
from ivcp.judges.cache import ReplyCache
from ivcp.judges.endpoint import Endpoint, PassingError, RefusalError, is_local
from ivcp.judges.pace import Pace, back_off

FEW = 5
"""So many prompts are asked without a progress bar."""

GIVE_UP = 8
"""Prompts in a row, each tried to the end in vain, after which the endpoint counts as gone."""

ABOUT_ONE_PROMPT = frozenset({400, 413, 422})
"""Statuses that speak of the settings or of the prompt (too long, filtered)."""


@dataclass(kw_only=True)
class OpenAIJudge(Judge):
    """Asks a model by HTTP, several prompts at a time, and keeps its replies on disk.

    What may pass (time-outs, lost connections, status 408, 409, 429 or 5xx, a reply without a
    completion) is tried again after 1, 2, 4, ... seconds or when the server says. A prompt that
    is never answered gets None and the others go on. `GIVE_UP` such prompts in a row end it: an
    endpoint that is down, or a quota that is used up, would else cost minutes a prompt. Any other
    status ends it at once, except that 400, 413 and 422 fail the one prompt if these settings have
    had a reply before, now or in the cache. What was answered until then is in the cache.

    Attributes:
        model: Name of the model at the endpoint.
        base_url: Address that `/chat/completions` is appended to.
        key_variable: Environment variable that holds the key; None if the endpoint wants none. An
            endpoint on this machine needs no key.
        cache: Folder of the replies, a file for each model, address, temperature and `max_tokens`;
            None keeps none.
        retries: Tries of a prompt beyond the first.
        timeout: Seconds of silence after which a try is given up.
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
        self.base_url = _address(self.base_url)
        if self.key_variable is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.key_variable):
            raise UserError(
                "judge.key_variable must be the name of an environment variable that holds the "
                "key, such as OPENAI_API_KEY; what it got is no such name and is not repeated here "
                "in case it is the key itself."
            )
        least = {"retries": 0, "workers": 1, "requests_per_minute": 1, "max_tokens": 1}
        for name, bound in least.items():
            if (value := getattr(self, name)) is not None and value < bound:
                raise UserError(f"judge.{name} must be at least {bound}; got {value}.")
        if self.timeout <= 0:
            raise UserError(f"judge.timeout must be more than 0 seconds; got {self.timeout}.")
        self._halt = threading.Event()
        self.pace = Pace(self.requests_per_minute, time.monotonic, self._halt.wait)
        self._draw = random.Random()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._problem: str | None = None
        self._in_vain = 0

    def missing(self) -> str | None:
        """A sentence if there is no key where one is needed, or one that can't be sent."""
        key = self._key()
        if not key:
            if self.key_variable is None or is_local(self.base_url):
                return None
            return (
                f"No key in {self.key_variable}: export that variable, name another one with "
                "judge.key_variable=NAME, or choose another endpoint with judge.base_url=URL."
            )
        if not re.fullmatch(r"[!-~]+", key):
            return (
                f"The key in {self.key_variable} holds blanks or other characters that no key has: "
                "export it again."
            )
        return None

    def ask(self, prompts: Sequence[str]) -> list[str | None]:
        """The reply to each prompt; equal prompts are asked once, known ones not at all.

        If the endpoint gives up midway, the replies until then are used; `account` tells why.

        Raises:
            UserError: There is no key, the endpoint refuses or never replies to any, or the cache
                cannot be read or written.
        """
        if sentence := self.missing():
            raise UserError(sentence)
        cache = self._replies()
        distinct = list(dict.fromkeys(prompts))
        new = [prompt for prompt in distinct if cache.get(prompt) is None]
        self._count(from_cache=len(distinct) - len(new))
        if new:
            cache.open()
            try:
                self._ask(new, cache)
            except UserError as error:
                if all(cache.get(prompt) is None for prompt in distinct):
                    raise
                self._problem = str(error)
            finally:
                cache.close()
        return [cache.get(prompt) for prompt in prompts]

    def account(self) -> dict[str, Any]:
        """What this object has done so far, over all calls of `ask`.

        `asked` and `from_cache` count distinct prompts, `failed` those of `asked` without a reply,
        `retries` the tries beyond the first. Tokens and the cost in USD are those of the replies
        that came now, not of cached ones; the cost is None without prices or where a server told
        no tokens.
        """
        counts = self._counts
        names = ("asked", "from_cache", "failed", "retries", "prompt_tokens", "completion_tokens")
        cost = None
        if None not in (self.price_in, self.price_out) and not counts["unmetered"]:
            spent = counts["prompt_tokens"] * float(self.price_in or 0)
            spent += counts["completion_tokens"] * float(self.price_out or 0)
            cost = spent / 1e6
        return {
            "model": self.model,
            "base_url": self.base_url,
            **{name: counts[name] for name in names},
            "cost": cost,
            "last_problem": self._problem,
        }

    def _key(self) -> str:
        return os.environ.get(self.key_variable, "").strip() if self.key_variable else ""

    def _sampling(self) -> dict[str, Any]:
        temperature = None if self.temperature is None else float(self.temperature)
        asked = {"temperature": temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in asked.items() if value is not None}

    def _replies(self) -> ReplyCache:
        settings = {"model": self.model, "base_url": self.base_url, **self._sampling()}
        return ReplyCache(None if self.cache is None else Path(self.cache), settings)

    def _count(self, **numbers: int) -> None:
        with self._lock:
            self._counts.update(numbers)

    def _ask(self, prompts: Sequence[str], cache: ReplyCache) -> None:
        """Put prompts to the endpoint until all are done or there is no use in going on."""
        endpoint = Endpoint(self.base_url, self._key(), self.timeout)
        self._halt.clear()
        self._in_vain = 0
        with (
            _progress(len(prompts)) as progress,
            ThreadPoolExecutor(min(self.workers, len(prompts))) as pool,
        ):
            task = progress.add_task("", total=len(prompts))
            calls = [
                pool.submit(self._reply_or_halt, endpoint, cache, prompt) for prompt in prompts
            ]
            try:
                for call in as_completed(calls):
                    call.result()
                    progress.advance(task)
            except BaseException:
                self._halt.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _reply_or_halt(self, endpoint: Endpoint, cache: ReplyCache, prompt: str) -> None:
        """`_reply`; an error keeps the other threads from starting or waiting any more."""
        try:
            self._reply(endpoint, cache, prompt)
        except BaseException:
            self._halt.set()
            raise

    def _reply(self, endpoint: Endpoint, cache: ReplyCache, prompt: str) -> None:
        """Get one reply into the cache, if that is possible.

        Raises:
            UserError: The endpoint refuses or is given up, or the cache can't be written.
        """
        messages = [{"role": "user", "content": prompt}]
        body = {"model": self.model, "messages": messages, **self._sampling()}
        for attempt in range(self.retries + 1):
            self.pace.turn()
            if self._halt.is_set():
                return
            self._count(retries=1) if attempt else self._count(asked=1)
            try:
                completion = endpoint.complete(body)
            except PassingError as error:
                self._problem = str(error)
                if attempt < self.retries:
                    self.pace.sleep(back_off(attempt, error.retry_after, self._draw))
                continue
            except RefusalError as error:
                self._problem = str(error)
                if cache.known and error.status in ABOUT_ONE_PROMPT:
                    break
                raise UserError(
                    f"The judge at {endpoint.url} refuses model {self.model} ({error}); check "
                    f"judge.model, judge.base_url and judge.key_variable={self.key_variable}."
                ) from error
            read, written = completion.prompt_tokens, completion.completion_tokens
            self._count(prompt_tokens=read or 0, completion_tokens=written or 0)
            self._count(unmetered=None in (read, written))
            cache.put(prompt, completion.text)
            self._in_vain = 0
            return
        self._count(failed=1)
        with self._lock:
            self._in_vain += 1
            gone = self._in_vain >= GIVE_UP
        if gone:
            raise UserError(
                f"The judge {self.model} at {endpoint.url} left {GIVE_UP} prompts in a row without "
                f"a reply (the last problem: {self._problem}); try again later: what it has "
                "replied is kept in judge.cache."
            )


def _progress(total: int) -> Progress:
    columns = TextColumn("judging"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, console=Console(stderr=True), disable=total <= FEW)


def _address(base_url: str) -> str:
    """A base address without a slash at its end.

    Raises:
        UserError: It is no address, or one with a secret in it, which records would show.
    """
    address = base_url.rstrip("/")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", address) or set("@?#") & set(address):
        raise UserError(
            "judge.base_url must be an address such as https://api.openai.com/v1, without a user, "
            "password or query, for these would be written into records; got another one."
        )
    return address
