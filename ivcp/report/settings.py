"""What runs were made with: what they share, and what each has of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ivcp.report.runs import Run

LEFT_OUT = frozenset({"primary_metric", "tasks", "points", "notes", "judge", "rotary"})
"""Parts of a record that tell of results; tables and notes have them."""


@dataclass(frozen=True)
class Settings:
    """The settings of runs.

    Attributes:
        shared: What all of them have, by its dotted name.
        own: What else each of them has, in the order of the runs.
    """

    shared: Mapping[str, str]
    own: tuple[Mapping[str, str], ...]


def settings_of(runs: Sequence[Run]) -> Settings:
    """What the records of runs hold, set apart."""
    each = [dict(_flat(run.record)) for run in runs]
    if len(each) < 2:
        return Settings(each[0] if each else {}, tuple({} for _ in each))
    first, *others = each
    shared = {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }
    own = tuple({name: value for name, value in one.items() if name not in shared} for one in each)
    return Settings(shared, own)


def _flat(told: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in told.items():
        if not path and key in LEFT_OUT:
            continue
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, dict) and value:
            yield from _flat(value, name)
        else:
            yield name, "-" if value is None else str(value)
