"""Texts of models, data and servers on a terminal: shown as they are, and obeyed by nobody."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ivcp.core.errors import UserError

if TYPE_CHECKING:
    from ivcp.core.types import Sample

LONGEST = 400
"""Most characters of a text that readers see."""
TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|$)|[ -/]*[0-~])", re.S)
"""Escape sequences, which colour, move or rename terminals."""
JOINERS = "\u200c\u200d"
"""Invisible, but part of words and emoji."""


def whole(text: str) -> str:
    r"""A text without halves of characters (lone surrogates), which no file can hold.

    >>> whole("half \ud83d"), whole("\U0001f600")
    ('half ?', '\U0001f600')
    """
    return text.encode("utf-8", "replace").decode()


def check_characters(sample: Sample) -> None:
    """Refuse a sample with half a character, such as of an emoji, which no model takes.

    Raises:
        UserError: A text of it has one.
    """
    texts = {
        "question": (sample.question, sample.hint, sample.prompt),
        "options": sample.options,
        "answer": sample.answer if isinstance(sample.answer, tuple) else (sample.answer,),
    }
    for name, values in texts.items():
        if any(isinstance(text, str) and text != whole(text) for text in values):
            raise UserError(
                f"Expected whole characters in the {name}; got half of one (a lone surrogate): "
                "repair it."
            )


def printable(text: str, longest: int = LONGEST) -> str:
    r"""A text on one line, without terminal escapes, control characters and lone surrogates.

    >>> printable("\x1b[31ma\x1b[0m\nb\x00c")
    'a b�c'

    Args:
        text: Any text.
        longest: Most characters; "…" stands for the others.
    """
    if len(text) <= longest and text.isprintable():  # most texts; a report has 100,000 of them
        return text
    kept = "".join(
        character if character.isprintable() or character in JOINERS
        else " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
        for character in TERMINAL.sub("", text[: 2 * longest])
    )  # fmt: skip
    return kept if len(kept) <= longest else f"{kept[: longest - 1]}…"
