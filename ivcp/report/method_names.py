"""Names of methods as papers write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ivcp.results.schema import RunInfo

NAMES = {
    "none": "Unpruned",
    "random": "Random",
    "uniform": "Uniform grid",
    "downsample": "Smaller image",
    "pool": "Average pooling",
    "farthest": "Farthest points",
    "ivc": "IVC tokens only",
    "foreground": "Foreground only",
    "ivcp": "IVC-Prune",
    "ivcp_two_pass": "IVC-Prune (two passes)",
    "fastervlm": "FasterVLM",
}
"""Names that the class does not have, such as those of controls and of presets."""
UNPRUNED = NAMES["none"]


def method_name(info: RunInfo) -> str:
    """The method of a run: the name of its class, where the configuration has the same in small.

    `conf/pruner/fastv.yaml` with `ivcp.pruners.fastv.FastV` is FastV; a configuration of another
    name keeps that name, since it may stand for other settings of the same class.
    """
    return _name(info.config.get("pruner"), info.pruner)


def _name(settings: Any, stem: str | None = None) -> str:
    settings = settings if isinstance(settings, Mapping) else {}
    module, _, cls = str(settings.get("_target_") or "").rpartition(".")
    module = module.rpartition(".")[2]
    stem = module if stem is None else stem
    if stem == module == "compose" and isinstance(parts := settings.get("parts"), Mapping):
        return " + ".join(map(_name, parts.values()))
    if stem == module == "plus_ivc":
        added = {"ivc": "IVC", "random": NAMES["random"]}.get(str(settings.get("added")), "IVC")
        return f"{_name(settings.get('base'))} + {added}"
    return NAMES.get(stem) or (cls if cls.lower() == stem.replace("_", "") else stem)
