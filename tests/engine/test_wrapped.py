"""Wrappers take every method: IVC tokens in its budget, and random tokens in depth behind it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_budgets import METHODS
from test_invariants import build

from ivcp import pruned
from ivcp.core.pruner import Pruner
from ivcp.pruners.compose import Compose
from ivcp.pruners.plus_ivc import PlusIVC
from ivcp.pruners.random import RandomPruning
from ivcp.testing import batch_of, model_of

every_base = pytest.mark.parametrize("name", [name for name in METHODS if name != "plus_ivc"])
families = pytest.mark.parametrize("family", ["qwen25vl", "internvl"])


def check_budget(family: str, pruner: Pruner, ratio: float, greedy: Any) -> None:
    model, batch = model_of(family), batch_of(family)
    with pruned(model, pruner) as session:
        greedy(model, batch.inputs)
    for kept, images in zip(session.kept, batch.tokens, strict=True):
        counts = [int(torch.isin(kept, image).sum()) for image in images]
        assert counts == [max(1, round(ratio * len(image))) for image in images]


@families
@every_base
def test_ivc_tokens_join_any_method(family: str, name: str, greedy: Any) -> None:
    check_budget(family, PlusIVC(base=build(name, 0.9, family), keep_ratio=0.4), 0.4, greedy)


@families
@every_base
def test_random_tokens_follow_any_method(family: str, name: str, greedy: Any) -> None:
    parts = (build(name, 0.9, family), RandomPruning(layer=5))
    check_budget(family, Compose(parts=parts, keep_ratio=0.25), 0.25, greedy)
