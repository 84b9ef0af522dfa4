"""When two runs may be held against each other."""

from __future__ import annotations

from typing import Any

COMPARED = ("model", "dataset", "metric", "judge", "seed", "limit", "batch_size", "generation")
"""Parts of the configuration that must agree, beside where files lie."""
PLACES = ("root", "photos", "download", "verify")
"""Settings of a dataset that say where it lies, not what it is."""


def content(part: Any) -> Any:
    """A part of a configuration without places; nothing chosen is nothing, however written.

    >>> content({"name": "A", "root": "/here"}), content({})
    ({'name': 'A'}, None)
    """
    if isinstance(part, dict):
        return {key: content(own) for key, own in part.items() if key not in PLACES} or None
    return part
