"""Rows of published tables: settings compose, and what a layer processes is what the row says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_conf import CONF, composed

from ivcp.core.budgeted import Budgeted, budgeted
from ivcp.core.errors import UserError
from ivcp.core.view import Signal

SWEEPS = {  # tokens of an image, decoder layers, type of the model
    "llava15_192_128_64": (576, 32, "llava"),
    "llavanext_640_320_160": (2880, 32, "llava_next"),
    "qwen25vl_33_22_11": (1024, 28, "qwen2_5_vl"),
}
OWN = {
    "sparsevlm": {"llava15_192": 202.75, "llava15_128": 140.8125, "llava15_64": 79.1875},
    "dart": {"llava15_192": 219.75, "llava15_128": 159.75, "llava15_64": 99.75},
}
"""What a layer processes on average with a method's own settings, merged tokens not counted."""
BEYOND = {
    ("fastv", "llavanext_160"), ("dart", "llavanext_160"), ("sparsevlm", "llavanext_160"),
    ("sparsevlm", "qwen25vl_11"),
}  # fmt: skip
"""Pairs that cannot be reached, as the page says."""


def pairs() -> list[tuple[str, str, str]]:
    found = []
    for sweep in SWEEPS:
        params = OmegaConf.load(CONF / "experiment" / f"{sweep}.yaml").hydra.sweeper.params
        for pruner in params.pruner.split(","):
            found += [(sweep, pruner, budget) for budget in params.budget.split(",")]
    return [pair for pair in found if pair[1] != "none"]


def average(method: Any, left: tuple[int, ...], length: int, layers: int) -> float:
    counts = [length] * layers
    for stage, kept in zip(method.stages(), left, strict=True):
        counts[stage.layer :] = [kept] * (layers - stage.layer)
    return sum(counts) / layers


@pytest.mark.parametrize(("sweep", "pruner", "budget"), pairs())
def test_a_row_is_what_a_layer_processes_on_average(sweep: str, pruner: str, budget: str) -> None:
    length, layers, kind = SWEEPS[sweep]
    cfg = composed(f"pruner={pruner}", f"budget={budget}", f"model={budget.partition('_')[0]}")
    method = instantiate(cfg.pruner, _convert_="all")
    method = method.fitted(kind, layers, frozenset(get_args(Signal)))
    wanted = cfg.tokens or cfg.ratio * length
    if (pruner, budget) in BEYOND:
        with pytest.raises(UserError, match="were asked for: ask for more, or prune earlier"):
            budgeted(method, layers, tokens=cfg.tokens, **cfg.budget).ratio(length, layers)
        return
    found = budgeted(method, layers, tokens=cfg.tokens, **cfg.budget)
    assert isinstance(found, Budgeted)
    if cfg.budget.solved:
        solved = replace(method, keep_ratio=found.ratio(length, layers))
        came_out = average(method, solved.plan(length), length, layers)
        assert came_out == pytest.approx(wanted, abs=max(1.6, length / 1000))
    else:
        left = method.table if pruner == "sparsevlm" else method.plan(length)
        assert average(method, left, length, layers) == OWN[pruner][budget]


@pytest.mark.parametrize("path", sorted((CONF / "published").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_setting_is_that_of_a_pair_and_tells_its_source(path: Path) -> None:
    pruner, _, budget = path.stem.partition("__")
    known = OmegaConf.load(CONF / "pruner" / f"{pruner}.yaml")
    assert (CONF / "budget" / f"{budget}.yaml").exists()
    assert set(OmegaConf.load(path).get("pruner", {})) <= set(known)
    text = path.read_text()
    assert "# Source: " in text
    assert any(
        f"Grade: {grade}" in text for grade in ("authors' code", "third party", "arithmetic")
    )
