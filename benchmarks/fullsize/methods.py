"""The methods that are compared, and at which layers of a model they act."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ivcp.core.pruner import Pruner
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning
from ivcp.pruners.random import RandomPruning
from ivcp.pruners.sparsevlm import SparseVLM

PRUNERS = ("none", "ivcp", "fastv", "sparsevlm", "random")
LAYER_FRACTION = {"qwen25vl": 16 / 28, "qwen3vl": 0.5, "internvl": 0.5}
"""Where single-stage methods act: as published for Qwen2.5-VL-7B (16 of 28) and InternVL2.5-8B (16
of 32); the middle for Qwen3-VL, for which nothing is published."""


@dataclass(frozen=True)
class Method:
    """A row of the comparison; without a pruner it is the plain model, outside any session."""

    name: str
    pruner: Pruner | None = None


def methods_for(
    names: list[str], ratios: list[float], layers: int, fraction: float
) -> list[Method]:
    """The methods to compare on one model.

    Args:
        names: Some of `PRUNERS`.
        ratios: Keep ratios.
        layers: Number of decoder layers.
        fraction: Where single-stage methods act, as a fraction of the depth.
    """
    layer = min(max(1, round(fraction * layers)), layers - 1)
    stages: list[int] = []
    for published in (3, 7, 16):  # of the 32 layers of LLaVA-1.5-7B
        stages.append(max(round(published * layers / 32), stages[-1] + 1 if stages else 1))
    build: dict[str, list[Callable[[float], Method]]] = {
        "ivcp": [lambda r: Method("ivcp", IVCPrune(keep_ratio=r, layer=layer))],
        "fastv": [
            lambda r: Method("fastv as published", FastV(keep_ratio=r, layer=2)),
            lambda r: Method(
                "fastv matched", FastV(keep_ratio=r, layer=layer, prune_earlier_kv=True)
            ),
        ],
        "sparsevlm": [lambda r: Method("sparsevlm", SparseVLM(keep_ratio=r, layers=tuple(stages)))],
        "random": [lambda r: Method("random", RandomPruning(keep_ratio=r, layer=layer))],
    }
    methods = [Method("unpruned")]
    if "none" in names:
        methods.append(Method("none", NoPruning()))
    return methods + [
        make(ratio) for name in names if name != "none" for ratio in ratios for make in build[name]
    ]


def label(method: Method) -> dict[str, Any]:
    """The cells that name a method; empty where it does not prune."""
    if method.pruner is None or not (stages := method.pruner.stages()):
        return {"method": method.name, "keep_ratio": "", "before_layers": ""}
    layers = " ".join(str(stage.layer) for stage in stages)
    return {"method": method.name, "keep_ratio": method.pruner.keep_ratio, "before_layers": layers}
