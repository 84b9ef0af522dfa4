"""Where benchmark files and their images lie."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ivcp.core.errors import UserError


def data_root(root: str | None) -> Path:
    """The folder of benchmark files: `root`, else the variable `LMUData`, else `~/LMUData`.

    Raises:
        UserError: It is a file, or cannot be read.
    """
    path = user_path(root or os.environ.get("LMUData") or "~/LMUData")  # noqa: SIM112
    if path.exists() and not path.is_dir():
        raise UserError(
            f"data.root (or the variable LMUData) must be a folder; {path} is none: name the one "
            "that has the benchmark files."
        )
    return path


def user_path(path: str) -> Path:
    """A path of the user's, in which `~` stands for a home folder.

    Raises:
        UserError: There is no such home folder, or nobody lets us look at the path.
    """
    try:
        found = Path(path).expanduser()
        if found.is_dir():
            os.stat(f"{found}/.")  # fails in a folder that is closed to us
    except RuntimeError as error:
        raise UserError(f"Expected a path; got {path!r}, whose home folder is unknown.") from error
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}).") from error
    return found


def first_file(candidates: Iterable[Path]) -> Path | None:
    """The first path at which there is a file; None if there is none.

    Raises:
        UserError: A folder is there instead, or the path cannot be looked at.
    """
    for path in candidates:
        try:
            if path.is_file():
                return path
            if path.is_dir():
                raise UserError(f"Expected a file at {path}; it is a folder: move it away.")
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    return None


def image_file(name: str, folders: Sequence[Path], anywhere: bool) -> Path:
    """The image or clip, a file or a folder of frames, that an annotation file names.

    Args:
        name: Its path, usually relative to one of the folders.
        folders: Where it may lie; a file that is in none of them is expected in the last.
        anywhere: Whether the file may lie outside of the folders.

    Raises:
        UserError: It lies outside of them, or the text is no path.
    """
    try:
        paths = [folder / name for folder in folders]
        path = next((path for path in paths if path.exists()), paths[-1])
        inside = anywhere or any(
            path.resolve().is_relative_to(folder.resolve()) for folder in folders
        )
    except (OSError, ValueError, RuntimeError) as error:  # no file system can have it
        raise UserError(f"Expected the path of a file; got {name!r} ({error}).") from error
    if not inside:
        raise UserError(
            f"The file {name} lies outside of {' and '.join(map(str, folders))}; put it there, or "
            "set data.images_anywhere=true if you trust the file that names it."
        )
    return path
