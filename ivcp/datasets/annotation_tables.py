"""Tables of annotations as the Hugging Face hub has them: parquet, or a list in JSON."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from ivcp.core.errors import UserError
from ivcp.datasets.annotation_values import list_of, read_json


def read_table(path: Path, origin: str) -> list[Any]:
    """The rows of a file, each a mapping from columns to values if the file is as published.

    Tables of questions about clips hold texts and numbers only, a few megabytes.

    Args:
        path: A parquet file, or else a JSON file that holds a list.
        origin: Where to get it, for messages.

    Raises:
        UserError: It cannot be read, or the library that reads parquet is missing.
    """
    if path.suffix != ".parquet":
        return list_of(read_json(path, origin), f"rows in {path}")
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise UserError(
            f"{path.name} is read by the package pyarrow; pip install ivcp[hub]."
        ) from error
    try:
        rows: list[Any] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{path} is no parquet file that can be read ({reason}); get it from {origin}."
        ) from error
    return rows
