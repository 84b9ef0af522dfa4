"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in configuration, data or missing files, told in one clear sentence.

    The command line prints the sentence and exits with code 2; every other exception is a defect of
    this package and keeps its traceback.
    """
