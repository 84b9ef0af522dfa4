"""The exception for mistakes that the user can correct."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

LONGEST_LINE = 4000
"""Most characters of a line on the terminal."""


class UserError(Exception):
    """A mistake in configuration, data or missing files, described in one sentence.

    The command line prints the sentence and exits with code 2; every other exception is a defect of
    this package and keeps its traceback.
    """


class MissingSignalError(UserError):
    """A model lacks a signal that a method reads.

    Attributes:
        provides: The signals that the model has.
    """

    def __init__(self, text: str, provides: Iterable[Any] = ()) -> None:
        super().__init__(text)
        self.provides: frozenset[Any] = frozenset(provides)


class UnreachableBudgetError(UserError):
    """A budget that a method cannot meet on a prompt, such as more tokens than an image has."""


class LibraryTooOldError(UserError):
    """The installed `transformers` lacks what a model family or a session needs."""


def did_you_mean(word: str, words: Iterable[object], otherwise: str = ".") -> str:
    """The end of a sentence about a word that does not exist: what was probably meant.

    Args:
        word: What came.
        words: What exists.
        otherwise: The end where nothing of it is close.

    >>> did_you_mean("ratoi", ["ratio", "limit"]), did_you_mean("x", ["ratio"])
    ('; did you mean ratio?', '.')
    """
    close = get_close_matches(word, [str(other) for other in words], n=2)
    return f"; did you mean {' or '.join(close)}?" if close else otherwise


def exit_code(command: Callable[[], object]) -> int:
    """Run a command; 0, or 2 after a `UserError`, whose sentence goes to standard error."""
    from ivcp.core.printable import printable  # it imports this module

    try:
        command()
    except UserError as error:
        for line in str(error).split("\n"):
            print(printable(line, LONGEST_LINE), file=sys.stderr)
        return 2
    return 0
