"""What sets runs of the same pruner apart, beside ratio and layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ivcp.report.runs import Run

TOLD_APART = frozenset({"keep_ratio", "layer", "layers", "seed"})
"""Settings of a pruner, or of one in it, that have a column or make no other method."""


def with_variants(runs: Sequence[Run]) -> list[Run]:
    """The runs with `variant`: settings in which runs of one pruner, model, set and layer differ.

    Such a setting is told of all runs of that pruner that have it.
    """
    settings = {run: dict(_flat(run.pruner_config)) for run in runs}
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.pruner, run.model, run.dataset, run.layer), []).append(run)
    differing: dict[str, set[str]] = {}
    for (pruner, *_), group in groups.items():
        names = {name for run in group for name in settings[run]}
        differing.setdefault(pruner, set()).update(
            name
            for name in names
            if len({settings[run][name] for run in group if name in settings[run]}) > 1
        )
    return [
        _named(
            run,
            " ".join(
                f"{name}={value}"
                for name, value in settings[run].items()
                if name in differing[run.pruner]
            ),
        )
        for run in runs
    ]


def _named(run: Run, variant: str) -> Run:
    members = tuple(replace(member, variant=variant) for member in run.members)
    return replace(run, variant=variant, members=members)


def _flat(told: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Settings by their names in an override, as an override would have their values."""
    for key, value in told.items():
        name = f"{path}.{key}" if path else key
        if key == "_target_":  # of a method in a method, the name of its module
            if path:
                yield path, str(value).split(".")[-2:][0]
        elif isinstance(value, dict):
            yield from _flat(value, name)
        elif key not in TOLD_APART:
            yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
