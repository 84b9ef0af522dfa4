"""What sets runs of the same pruner apart, beside ratio and layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ivcp.core.comparable import COMPARED, content
from ivcp.report.runs import Run

TOLD_APART = frozenset({"keep_ratio", "layer", "layers"})
"""Settings of a pruner, or of one in it, that have a column of their own."""
SEED = "seed"
"""Name of settings that repeat a method and make no other one."""

Settings = Mapping[str, str]


def with_variants(runs: Sequence[Run]) -> list[Run]:
    """The runs with `variant` and `repeat`: settings in which comparable runs differ.

    These are settings of the pruner in which runs of that pruner, model and set differ, and all
    others that make runs of one model and set incomparable, such as the number of samples.
    """
    own = {run: dict(_flat(run.config.get("pruner"))) for run in runs}
    others = {run: dict(_other_settings(run)) for run in runs}
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.model, run.dataset), []).append(run)
        groups.setdefault((run.model, run.dataset, run.pruner), []).append(run)
    names = {
        key: _differing((own if key[2:] else others)[run] for run in group)
        for key, group in groups.items()
    }
    named = []
    for run in runs:
        found = [
            (name, value)
            for settings, key in (
                (own[run], (run.model, run.dataset, run.pruner)),
                (others[run], (run.model, run.dataset)),
            )
            for name, value in settings.items()
            if name in names[key]
        ]
        variant, repeat = (
            " ".join(f"{n}={v}" for n, v in found if (n.split(".")[-1] == SEED) == seeds)
            for seeds in (False, True)
        )
        tasks = tuple(replace(one, variant=variant, repeat=repeat) for one in run.tasks)
        named.append(replace(run, tasks=tasks, variant=variant, repeat=repeat))
    return named


def _differing(settings: Iterable[Settings]) -> set[str]:
    """Names of settings that differ; those of a method in a method, if that is the same."""
    each = list(settings)
    found = set()
    for name in {name for one in each for name in one}:
        values: dict[str | None, set[str | None]] = {}
        for one in each:
            values.setdefault(one.get(name.rpartition(".")[0]), set()).add(one.get(name))
        if any(len(kinds) > 1 for kinds in values.values()):
            found.add(name)
    return found


def _other_settings(run: Run) -> Iterator[tuple[str, str]]:
    for part in COMPARED:
        value = content(run.config.get(part))
        if isinstance(value, dict):
            yield from _flat(value, part)
        else:
            yield part, _text(value)
    yield "device", _text(run.record.get("device"))


def _flat(told: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Settings by their names in an override, as an override would have their values."""
    for key, value in told.items() if isinstance(told, Mapping) else ():
        name = f"{path}.{key}" if path else key
        if key == "_target_":  # of a method in a method, the name of its module
            if path:
                yield path, str(value).split(".")[-2:][0]
        elif isinstance(value, Mapping):
            yield from _flat(value, name)
        elif key not in TOLD_APART:
            yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)
