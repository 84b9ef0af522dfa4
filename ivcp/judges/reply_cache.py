"""Replies on disk, so that no prompt is paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ivcp.core.errors import UserError


class ReplyCache:
    """Replies to prompts under one set of settings, in an SQLite file that processes may share.

    Args:
        folder: Holds `replies.sqlite`, for all settings; None keeps nothing.
        settings: Everything that a reply depends on beside the prompt, as JSON values.

    Attributes:
        replies: Those that `get` found and `put` kept, by prompt.

    Raises:
        UserError: The file is damaged, or cannot be read; from methods, also: cannot be written.
    """

    def __init__(self, folder: str | Path | None, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._settings = settings
        self.replies: dict[str, str] = {}
        path = ":memory:"
        with self._errors_in_a_sentence():
            if folder is not None:
                path = str(Path(folder).expanduser() / "replies.sqlite")
                os.makedirs(os.path.dirname(path), exist_ok=True)
                os.close(os.open(path, os.O_CREAT, 0o600))  # for the user's eyes only
            self._file = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._file.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply)")

    def get(self, prompt: str) -> str | None:
        """The reply to a prompt; None if there is none."""
        with self._errors_in_a_sentence():
            rows = self._file.execute("SELECT reply FROM replies WHERE key = ?", self._key(prompt))
            reply = next(rows, (None,))[0]
        if isinstance(reply, str):
            self.replies[prompt] = reply
        return self.replies.get(prompt)

    def put(self, prompt: str, reply: str) -> None:
        """Keep a reply."""
        self.replies[prompt] = reply
        with self._errors_in_a_sentence():
            row = (*self._key(prompt), reply)
            self._file.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", row)

    def check_writable(self) -> None:
        """Raise the error of a later `put` before a prompt is paid for."""
        with self._errors_in_a_sentence():
            self._file.execute("UPDATE replies SET reply = '' WHERE key = ''")  # matches no row

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _key(self, prompt: str) -> tuple[str]:
        content = json.dumps({**self._settings, "prompt": prompt}, sort_keys=True)
        return (hashlib.sha256(content.encode("ascii")).hexdigest(),)

    @contextmanager
    def _errors_in_a_sentence(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, sqlite3.Error) as error:  # RuntimeError: no such home
            raise UserError(
                f"The judge's replies cannot be read or written at {self._folder} ({error}); "
                "choose another folder with judge.cache=FOLDER, or judge.cache=null to keep none."
            ) from error
