"""Checkpoints in a folder or on the hub: how they are found, read and refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from ivcp.core.errors import UserError
from ivcp.models.hub_access import cache_only, check_cached
from ivcp.models.weight_files import check_files

TEMPLATES = "chat_template.jinja, chat_template.json or the tokenizer's configuration"


def find_source(path: str | None, architecture: str) -> str:
    """Folder or hub id of a checkpoint; a path that cannot be a hub id must exist.

    Args:
        path: The user's setting.
        architecture: Class that loads the checkpoint, for the message.

    Raises:
        UserError: No path is set, or it is neither a folder nor a hub id.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if not path:
        raise UserError(
            "model.path is not set: give the folder or hub id of a checkpoint that "
            f"{architecture} loads."
        )
    folder = Path(path).expanduser()
    if folder.is_dir():
        return str(folder)
    is_id = not path.startswith(("/", ".", "~")) and not folder.exists()
    with contextlib.suppress(HFValidationError):
        if is_id:
            validate_repo_id(path)
            return path
    raise UserError(
        f"model.path must be an existing folder with Hugging Face weights or a hub id; got "
        f"{path!r}, which is {'a file' if folder.is_file() else 'no folder'}."
    )


@contextlib.contextmanager
def explained(source: str, attention: str = "sdpa") -> Iterator[None]:
    """Turn the errors of libraries that read a checkpoint into one sentence.

    Args:
        source: Folder or hub id.
        attention: The backend that is asked for, which may need a package of its own.

    Raises:
        UserError: The checkpoint cannot be read, or a package is missing.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    unusable = (SafetensorError, UnpicklingError, EOFError, StrictDataclassError)
    try:
        yield
    except ImportError as error:
        reason = str(error).strip().split(".")[0]
        if attention not in ("sdpa", "eager"):
            raise UserError(
                f"model.attention={attention} cannot be used here ({reason}); install it "
                "(pip install ivcp[flash-attn]) or use model.attention=sdpa."
            ) from error
        raise UserError(
            f"The model {source!r} needs a package that is missing ({reason})."
        ) from error
    except (OSError, ValueError, KeyError, *unusable) as error:
        raise UserError(
            f"The model {source!r} could not be loaded ({_reason(error)}); {_advice(source)}."
        ) from error


def _reason(error: Exception) -> str:
    """The beginning of an error's text, which may be many lines of advice."""
    if isinstance(error, UnpicklingError):  # torch's text advises to run the file's code
        return "a .bin file holds something else than weights"
    if isinstance(error, KeyError):
        return f"a file lacks the entry {error}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [
        "no reason given"
    ]
    count = 2 if lines[0].endswith(":") else 1
    return " ".join(lines[:count]).rstrip(".")


def _advice(source: str) -> str:
    """What to do about a checkpoint that cannot be read."""
    if Path(source).is_dir():
        return "the folder must hold what save_pretrained writes; copy or download it again"
    if cache_only(source):
        return f"download all of it where the hub can be reached (hf download {source})"
    return "check the name, your access to it (hf auth login), and your way to the hub"


def stored_type(source: str) -> str | None:
    """The model type in a checkpoint's configuration, if it has one.

    Raises:
        UserError: There is no configuration.
    """
    from transformers import PreTrainedConfig

    check_cached(source)
    with explained(source):
        check_files(source)
        try:
            config, _ = PreTrainedConfig.get_config_dict(
                source, local_files_only=cache_only(source)
            )
        except TypeError:  # older libraries take any content for a dictionary
            config = None
    if not isinstance(config, Mapping):
        raise UserError(f"config.json of the model {source!r} must hold settings by name.")
    kind: str | None = config.get("model_type")
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
    if kind is None or kind in model_types:
        with explained(source):
            config = AutoConfig.from_pretrained(
                source, trust_remote_code=False, local_files_only=cache_only(source)
            )
        if config.model_type in model_types:
            return config
        kind = config.model_type
    raise UserError(
        f"{family} loads models of type {', '.join(model_types)}; {source!r} is of type {kind!r}: "
        f"{advice}."
    )


def generation_settings(source: str, config: Any) -> dict[str, Any]:
    """What a checkpoint's own generation settings change of the library's, as `load` takes them."""
    from transformers import GenerationConfig

    try:
        stored = GenerationConfig.from_pretrained(source, local_files_only=cache_only(source))
    except OSError:  # many folders have none
        stored = GenerationConfig.from_model_config(config)
    settings: dict[str, Any] = stored.to_diff_dict()
    return settings


def chat_template(tokenizer: Any, source: str) -> str:
    """The chat template of a checkpoint.

    Raises:
        UserError: It has none.
    """
    from transformers.utils import cached_file

    if tokenizer.chat_template is not None:
        return str(tokenizer.chat_template)
    try:  # processors of transformers 4 wrote it to this file, which tokenizers do not read
        path = cached_file(source, "chat_template.json", local_files_only=cache_only(source))
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
