"""Files of weights that cannot be used, found before they are loaded or right after."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ivcp.core.errors import UserError

POINTER = b"version https://git-lfs"
"""First bytes of a file that git-lfs has not replaced by its content."""
ZIP, PICKLE = b"PK", b"\x80"
"""First bytes of what torch saves, and of what it saved before version 1.6."""


def check_files(source: str) -> None:
    """Refuse a folder whose files are no weights, though they have their names.

    Args:
        source: Folder, or a hub id, whose files the hub's library checks itself.

    Raises:
        OSError: The folder or a file cannot be read.
        UserError: A file is a git-lfs pointer or torn, or the folder has an adapter alone.
    """
    folder = Path(source)
    files = [path for path in sorted(folder.glob("*")) if path.is_file()]
    names = {path.name for path in files}
    if "adapter_config.json" in names and not any(map(_holds_weights, files)):
        raise UserError(
            f"{source!r} holds an adapter without its model: merge the two first (merge_and_unload "
            "of peft, then save_pretrained of the model and of its processor)."
        )
    for path in files:
        with path.open("rb") as stream:
            start = stream.read(len(POINTER))
        if start == POINTER:
            raise UserError(
                f"{path} is a git-lfs pointer instead of the file itself: fetch it with "
                "git lfs pull, or download the checkpoint again."
            )
        if _holds_weights(path) and _is_torn(path, start):
            raise UserError(
                f"{path} is torn, as by a download that stopped: copy or download it again."
            )


def _holds_weights(path: Path) -> bool:
    return path.match("model*.safetensors") or path.match("pytorch_model*.bin")


def _is_torn(path: Path, start: bytes) -> bool:
    from safetensors import SafetensorError, safe_open

    if path.suffix == ".bin":
        return not (zipfile.is_zipfile(path) if start[:2] == ZIP else start[:1] == PICKLE)
    try:
        with safe_open(path, "pt"):  # compares the header with the file's length
            return False
    except SafetensorError:
        return True


def check_complete(source: str, found: Mapping[str, Collection[Any]]) -> None:
    """Refuse weights that leave parameters of the model at random values.

    Args:
        source: Folder or hub id.
        found: What `from_pretrained` gives with `output_loading_info=True`.

    Raises:
        UserError: A parameter has no weights, or weights of another shape.
    """
    faults = {
        "are missing": sorted(found["missing_keys"]),
        "have another shape": sorted(key for key, *_ in found["mismatched_keys"]),
    }
    found_faults = [f"{len(names)} {what} ({names[0]})" for what, names in faults.items() if names]
    if found_faults:
        raise UserError(
            f"The weights in {source!r} are not those of the model that config.json describes: "
            f"{' and '.join(found_faults)}; use the two files of one checkpoint."
        )
