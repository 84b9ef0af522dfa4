"""Whether the Hugging Face hub answers: one short request, where the library tries for long."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from pathlib import Path

from ivcp.core.errors import UserError

PATIENCE = 3.0
"""Seconds that an answer may take; the variable HF_HUB_ETAG_TIMEOUT of the hub's library wins."""
REMEMBERED = 60
"""Seconds after which the hub is looked for anew."""
SERVER_ERROR = 500


def cache_only(source: str) -> bool:
    """Whether a checkpoint can come from the hub's cache only.

    Args:
        source: Folder or hub id.
    """
    from huggingface_hub import constants, hf_hub_url

    if Path(source).is_dir():
        return False
    if constants.HF_HUB_OFFLINE:
        return True
    # the request that the library sends first: only that address is sure to be let through
    return not _answers(hf_hub_url(source, "config.json"), int(time.monotonic() // REMEMBERED))


def check_cached(source: str) -> None:
    """Refuse a checkpoint that is not in the cache where it can come from nowhere else.

    Args:
        source: Folder or hub id.

    Raises:
        UserError: It is in neither place.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if cache_only(source) and not isinstance(try_to_load_from_cache(source, "config.json"), str):
        why = f"{constants.ENDPOINT} does not answer"
        if constants.HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE is set"
        raise UserError(
            f"The model {source!r} is neither a folder here nor in the hub's cache, and {why}; "
            f"check the name, or download it where the hub can be reached (hf download {source}) "
            "and point model.path at the folder."
        )


@functools.lru_cache(maxsize=8)
def _answers(url: str, minute: int) -> bool:  # noqa: ARG001 (a new minute, a new request)
    """Whether a server answers in time, with whatever but an error of its own.

    Args:
        url: The address.
        minute: Of the clock, so that answers are not remembered for longer.
    """
    from huggingface_hub import get_session

    statuses: list[int] = []
    patience = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or PATIENCE)

    def ask() -> None:
        with contextlib.suppress(Exception):  # whatever it is, the library would meet it, too
            statuses.append(get_session().head(url, timeout=patience).status_code)

    # a thread, since no time-out of a request bounds the look-up of a name
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience)
    return bool(statuses) and statuses[0] < SERVER_ERROR
