"""Replies on disk, so that no question is paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ivcp.core.errors import UserError


class ReplyCache:
    """Replies to prompts under one set of settings, in one append-only file of JSON lines.

    A line goes out in one write that begins and ends with a line break. So a process that is killed
    in the middle leaves one torn line, which is skipped; and processes that write at the same time
    don't cut into each other's lines.

    Args:
        folder: Holds a file for each set of settings; None keeps nothing.
        settings: Whatever a reply depends on beside the prompt, as JSON can tell it.

    Raises:
        UserError: The file is there but can't be read.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self.path: Path | None = None
        self.known: dict[str, str] = {}
        self._file: int | None = None
        if folder is None:
            return
        name = re.sub(r"[^\w.-]+", "-", str(settings.get("model", "judge")))[:80]
        self.path = folder.expanduser() / f"{name}-{_digest(settings)[:16]}.jsonl"
        try:
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._trouble("read", error) from error
        for line in lines:
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if isinstance(told, dict) and isinstance(reply := told.get("reply"), str):
                self.known.setdefault(str(told.get("prompt")), reply)

    def get(self, prompt: str) -> str | None:
        """The reply to a prompt, if there was one."""
        return self.known.get(_digest(prompt))

    def open(self) -> None:
        """Get ready for `put`, so that a folder that can't be written shows before a call is made.

        Raises:
            UserError: It can't be.
        """
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._trouble("written", error) from error

    def put(self, prompt: str, reply: str) -> None:
        """Keep a reply; may be called by several threads.

        Raises:
            UserError: It can't be written.
        """
        digest = _digest(prompt)
        self.known[digest] = reply
        if self._file is None:
            return
        try:
            os.write(self._file, b"\n%b\n" % _json({"prompt": digest, "reply": reply}))
        except OSError as error:
            raise self._trouble("written", error) from error

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _trouble(self, done: str, error: OSError) -> UserError:
        return UserError(
            f"The judge's replies cannot be {done} at {self.path} ({error.strerror}); choose "
            "another folder with judge.cache=FOLDER, or judge.cache=null to keep none."
        )


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode("ascii")


def _digest(value: Any) -> str:
    return hashlib.sha256(_json(value)).hexdigest()
