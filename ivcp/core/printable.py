"""Texts of models, data and servers on a terminal: shown as they are, and obeyed by nobody."""

from __future__ import annotations

import re

LONGEST = 400
"""Most characters of a text that readers see."""
TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])", re.S)
"""Escape sequences, which colour, move or rename terminals."""
JOINERS = "\u200c\u200d"
"""Invisible, but part of words and emoji."""


def printable(text: str, longest: int = LONGEST) -> str:
    r"""A text on one line, without terminal escapes, control characters and lone surrogates.

    >>> printable("\x1b[31ma\x1b[0m\nb\x00c")
    'a b�c'

    Args:
        text: Any text.
        longest: Most characters; "…" stands for the others.
    """
    kept = "".join(
        character if character.isprintable() or character in JOINERS
        else " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
        for character in TERMINAL.sub("", text[: 2 * longest])
    )  # fmt: skip
    return kept if len(kept) <= longest else f"{kept[: longest - 1]}…"
