"""When two runs may be compared: one rule for the screen, the report, resuming and notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ivcp.results.schema import RunInfo

COMPARED = (
    "model", "dataset", "metric", "judge", "seed", "limit", "batch_size", "generation", "backend",
)  # fmt: skip
"""Parts of the configuration that two comparable runs share; the pruner may differ."""

MEASURED = ("samples", "dtype", "attention", "device")
"""What else they share, as it came out."""

PATHS = ("root", "folder", "photos", "videos", "images_anywhere", "download", "verify")
"""Settings of a dataset that say where it lies, not what it is."""


def flatten(config: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """The values of nested mappings by their joined names.

    Nothing chosen is nothing, however it is written: null and empty mappings are left out.

    >>> flatten({"a": {"b": 1, "c": None}, "d": {}, "e": [2]})
    {'a.b': 1, 'e': [2]}
    """
    return dict(_leaves(config, "", separator))


def _leaves(value: Any, name: str, separator: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{name}{separator}{key}" if name else str(key), separator)
    elif value is not None:
        yield name, value


def settings(config: Mapping[str, Any], parts: tuple[str, ...] = COMPARED) -> dict[str, Any]:
    """Settings of some parts of a configuration by their dotted names, without paths of data."""
    flat = flatten({part: config.get(part) for part in parts})
    return {name: value for name, value in flat.items() if name.split(".")[-1] not in PATHS}


def conditions(run: RunInfo) -> dict[str, Any]:
    """Everything but the pruner that a fair comparison holds fixed, by its name."""
    measured = {name: getattr(run, name) for name in MEASURED}
    names = {"model name": run.model, "dataset name": run.dataset}
    return {**names, **settings(run.config), **measured}


def differences(run: RunInfo, other: RunInfo) -> list[str]:
    """Names of the conditions in which two runs differ; two comparable runs differ in none."""
    return differing(conditions(run), conditions(other))


def differing(values: Mapping[str, Any], others: Mapping[str, Any]) -> list[str]:
    """Names under which two mappings hold different values, in order."""
    return [name for name in {**values, **others} if values.get(name) != others.get(name)]
