"""The one exception that means: the user can mend this."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in configuration, data or missing files, told in one clear sentence.

    The command line prints the sentence and exits with code 2; every other exception is a defect of
    this package and keeps its traceback.
    """


def exit_code(command: Callable[[], object]) -> int:
    """Run a command: 0, or 2 with one sentence on standard error if the user can mend it."""
    try:
        command()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
