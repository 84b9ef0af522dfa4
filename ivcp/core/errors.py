"""The exception for mistakes that the user can correct."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in configuration, data or missing files, described in one sentence.

    The command line prints the sentence and exits with code 2; every other exception is a defect of
    this package and keeps its traceback.
    """


class LibraryTooOldError(UserError):
    """The installed `transformers` lacks what a model family or a session needs."""


def exit_code(command: Callable[[], object]) -> int:
    """Run a command; 0, or 2 after a `UserError`, whose sentence goes to standard error."""
    try:
        command()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
