"""What decides the answers of a run, so that no other run's answers are taken for its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import ivcp
from ivcp.core.comparable import PLACES
from ivcp.core.family import ModelFamily
from ivcp.evaluation.provenance import versions

DECIDING = ("model", "pruner", "dataset", "metric", "batch_size", "seed", "limit", "generation")
"""Parts of the configuration that decide answers or how they are scored."""

Identity = dict[str, str]
"""Each thing that decides, by a name that a reader knows, as text."""


def identity_of(config: dict[str, Any], model: ModelFamily, dataset: Any) -> Identity:
    """The identity of a run: configuration, weights, data, code and library versions.

    Args:
        config: The whole resolved configuration.
        model: Tells its weights' identity.
        dataset: Tells that of its data, if it has one.
    """
    told = {name: value for part in DECIDING for name, value in _flat(part, config.get(part))}
    for name, value in versions().items():
        told[f"version of {name}"] = str(value)
    told["code of ivcp"] = code()
    told["weights"] = model.identity()
    told["data"] = str(getattr(dataset, "identity", ""))
    return told


def differing(one: Identity, other: Identity) -> list[str]:
    """Sentences' parts on what differs, "pruner.keep_ratio (0.5 there, 0.3 here)"."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return [
        f"{name} ({one.get(name, 'nothing')} there, {other.get(name, 'nothing')} here)"
        if max(len(one.get(name, "")), len(other.get(name, ""))) < 40
        else name
        for name in names
    ]


def code(folder: Path = Path(ivcp.__file__).parent) -> str:
    """A sum over the package's own Python files."""
    sums = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        sums.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return sums.hexdigest()


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """Leaves of a part of the configuration under dotted names, places left out."""
    if not isinstance(value, dict):
        return [(name, json.dumps(value, sort_keys=True, default=str))]
    inner = [(key, own) for key, own in value.items() if key not in PLACES]
    return [pair for key, own in inner for pair in _flat(f"{name}.{key}", own)]
