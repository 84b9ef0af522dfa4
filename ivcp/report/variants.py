"""In which settings runs differ, and which they have in common."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ivcp.core.printable import printable
from ivcp.results.comparability import conditions, flatten
from ivcp.results.schema import RunInfo

NAMES = ("model name", "dataset name")
"""Conditions that tables have a column for."""
METHOD = frozenset({"keep_ratio", "layer", "layers"})
"""Settings of a pruner, or of a pruner in it, that tables have a column for."""
SEED = "seed"
"""Last word of settings that repeat a method instead of changing it."""
RESULTS = {"primary_metric", "tasks", "points", "notes", "judge", "rotary"}
"""Fields of a run's record that are no settings."""

LONGEST = 80
"""Most characters of a value."""

Values: TypeAlias = Mapping[str, str]
"""Values of settings by their dotted names."""


@dataclass(frozen=True)
class Variant:
    """What sets a run apart from others, beside pruner, ratio and layer.

    Attributes:
        settings: Settings as "name=value", separated by spaces.
        seeds: The same for seeds.
    """

    settings: str = ""
    seeds: str = ""

    @property
    def text(self) -> str:
        """All of them."""
        return f"{self.settings} {self.seeds}".strip()


def find_variants(runs: Sequence[RunInfo]) -> list[Variant]:
    """The settings in which runs differ, for each run.

    These are settings of the pruner in which runs of that pruner, model and dataset differ, and
    all others that make runs of one model and dataset incomparable, such as the number of samples.
    """
    pruners = [(run.model, run.dataset, run.pruner) for run in runs]
    datasets = [(run.model, run.dataset) for run in runs]
    parts = zip(
        _differing([pruner_settings(run) for run in runs], pruners),
        _differing([_other_settings(run) for run in runs], datasets),
        strict=True,
    )
    return [_variant({**pruner, **others}) for pruner, others in parts]


def split_settings(runs: Sequence[RunInfo]) -> tuple[Values, list[Values]]:
    """What the records of all runs have in common, and what else each of them has, by name."""
    records = [
        {
            name: str(value)
            for name, value in flatten(run.model_dump(mode="json", exclude=RESULTS)).items()
        }
        for run in runs
    ]
    common = {
        name: value
        for name, value in records[0].items()
        if all(record.get(name) == value for record in records)
    }
    return common, [
        {name: value for name, value in record.items() if name not in common} for record in records
    ]


def common_settings(runs: Sequence[RunInfo]) -> Values:
    """What all runs have in common of that which comparable runs share, by name."""
    each = [conditions(run) for run in runs]
    first = each[0]
    return {
        name.removesuffix(" name"): setting_text(value)
        for name, value in first.items()
        if all(values.get(name) == value for values in each)
        and not name.endswith("_target_")
        and name.removeprefix("model.") not in first.keys() - {name}
    }


def _differing(each: Sequence[Values], kinds: Sequence[Hashable]) -> list[Values]:
    """Of the settings of each run those in which runs of its kind differ.

    Settings of a pruner in a pruner are compared between runs in which that pruner is the same.
    """
    groups: dict[Hashable, list[Values]] = {}
    for values, kind in zip(each, kinds, strict=True):
        groups.setdefault(kind, []).append(values)
    names = {kind: _differing_names(group) for kind, group in groups.items()}
    return [
        {name: value for name, value in values.items() if name in names[kind]}
        for values, kind in zip(each, kinds, strict=True)
    ]


def _differing_names(group: Sequence[Values]) -> set[str]:
    names = set()
    for name in {name for values in group for name in values}:
        parent = name.rpartition(".")[0]
        alike: dict[str | None, set[str | None]] = {}
        for values in group:
            alike.setdefault(values.get(parent), set()).add(values.get(name))
        if any(len(kinds) > 1 for kinds in alike.values()):
            names.add(name)
    return names


def _variant(values: Values) -> Variant:
    """The settings as text; what came out, such as the dtype, only where it was not chosen."""
    texts: dict[bool, list[str]] = {False: [], True: []}
    for name, value in values.items():
        if f"model.{name}" not in values:
            texts[name.split(".")[-1] == SEED].append(f"{name}={printable(value, LONGEST)}")
    return Variant(" ".join(texts[False]), " ".join(texts[True]))


def pruner_settings(run: RunInfo) -> Values:
    """Settings of the pruner; a pruner in it goes by the name of its module."""
    settings = _budget(run)
    for name, value in flatten(run.config.get("pruner") or {}).items():
        parent, _, last = name.rpartition(".")
        if last == "_target_" and parent:
            settings[parent] = str(value).split(".")[-2:][0]
        elif last != "_target_" and last not in METHOD:
            settings[name] = setting_text(value)
    return settings


def _budget(run: RunInfo) -> dict[str, str]:
    """What the budget counts and spans, and its tokens, where the ratio does not say it all."""
    if run.budget is None:
        return {}
    # by its full name, since methods have settings of the name budget, too
    asked = {"budget.count": str(run.budget.count), "budget_over": str(run.budget.over)}
    asked = {name: value for name, value in asked.items() if value not in ("final", "video")}
    return asked | ({} if run.budget.tokens is None else {"tokens": str(run.budget.tokens)})


def _other_settings(run: RunInfo) -> Values:
    """What comparable runs have in common."""
    return {
        name: setting_text(value) for name, value in conditions(run).items() if name not in NAMES
    }


def setting_text(value: Any) -> str:
    """A value as an override has it."""
    if isinstance(value, list):
        return f"[{','.join(map(setting_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
