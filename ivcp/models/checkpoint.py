"""Checkpoints in a folder or on the hub: how they are found, read and refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ivcp.core.errors import UserError

POINTER = b"version https://git-lfs"
"""First bytes of a file that git-lfs has not replaced by its content."""
TEMPLATES = "chat_template.jinja, chat_template.json or the tokenizer's configuration"


def find_source(path: str | None, architecture: str) -> str:
    """Folder or hub id of a checkpoint; a path that cannot be a hub id must exist.

    Args:
        path: The user's setting.
        architecture: Class that loads the checkpoint, for the message.

    Raises:
        UserError: No path is set, or its folder does not exist.
    """
    if path is None:
        raise UserError(
            "model.path is not set: give the folder or hub id of a checkpoint that "
            f"{architecture} loads."
        )
    source = str(path)
    if not source.startswith(("/", ".", "~")) and source.count("/") <= 1:
        return source
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"model.path must be an existing folder with Hugging Face weights or a hub id; got "
            f"{source!r}, which is no folder."
        )
    return str(folder)


def unreadable(source: str, error: Exception) -> UserError:
    """The error for a checkpoint that could not be loaded."""
    reason = str(error).strip().split("\n")[0].rstrip(".")
    advice = (
        f"download it where the hub can be reached (hf download {source}) and point model.path at "
        "the folder"
    )
    if Path(source).is_dir():
        advice = "the folder must hold what save_pretrained writes; copy or download it again"
    return UserError(f"The model {source!r} could not be loaded ({reason}); {advice}.")


def stored_type(source: str) -> str | None:
    """The model type in a checkpoint's configuration, if it has one.

    Raises:
        UserError: There is no configuration.
    """
    from transformers import PreTrainedConfig

    check_pointers(source)
    try:
        kind: str | None = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from error
    return kind


def read_config(source: str, family: str, model_types: Collection[str], advice: str) -> Any:
    """The configuration of a checkpoint; code that it may contain is never run.

    Args:
        source: Folder or hub id.
        family: Name of the family, for the message.
        model_types: Values of `model_type` that the family can load.
        advice: What to do with a checkpoint of another type.

    Raises:
        UserError: There is no configuration, or the family cannot load it.
    """
    from transformers import AutoConfig

    # the type comes first: of an unknown type, the library says to run the checkpoint's code
    kind = stored_type(source)
    try:
        if kind is None or kind in model_types:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            if config.model_type in model_types:
                return config
            kind = config.model_type
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from error
    raise UserError(
        f"{family} loads models of type {', '.join(model_types)}; {source!r} is of type {kind!r}: "
        f"{advice}."
    )


def check_pointers(source: str) -> None:
    """Refuse a folder in which files are git-lfs pointers.

    Raises:
        UserError: A file is a pointer.
    """
    folder = Path(source)
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.is_file():
            with file.open("rb") as stream:
                is_pointer = stream.read(len(POINTER)) == POINTER
            if is_pointer:
                raise UserError(
                    f"{file} is a git-lfs pointer instead of the file itself: fetch it with "
                    "git lfs pull, or download the checkpoint with hf download."
                )


def chat_template(tokenizer: Any, source: str) -> str:
    """The chat template of a checkpoint.

    Raises:
        UserError: It has none.
    """
    from transformers.utils import cached_file

    if tokenizer.chat_template is not None:
        return str(tokenizer.chat_template)
    try:  # processors of transformers 4 wrote it to this file, which tokenizers do not read
        path = cached_file(source, "chat_template.json")
        return str(json.loads(Path(path).read_text(encoding="utf-8"))["chat_template"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"The model {source!r} has no chat template ({TEMPLATES}): copy it from the checkpoint "
            "that this one was trained from."
        ) from error


def identity(source: str, config: Any) -> str:
    """A digest of the names, sizes and times of a folder's files, or the hub's commit."""
    folder = Path(source)
    if not folder.is_dir():
        return str(getattr(config, "_commit_hash", None) or source)
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    lines = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
