"""What `backend=vllm` serves, and what it refuses before anything is loaded."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from ivcp import DivPrune, FastV, IVCPrune, NoPruning
from ivcp.core.errors import UserError
from ivcp.integrations.choices import available
from ivcp.integrations.vllm.backend import VLLMBackend
from ivcp.integrations.vllm.settings import canonical, pruner_of, settings_of
from ivcp.models.llava15 import Llava15
from ivcp.models.loaded import family_of
from ivcp.pruners.ivc import IVCOnly
from ivcp.pruners.plus_ivc import PlusIVC
from ivcp.pruners.random import RandomPruning

SERVED = [
    DivPrune(keep_ratio=0.25), IVCOnly(layer=0, offset=3), RandomPruning(layer=0, seed=7),
    PlusIVC(base=DivPrune(keep_ratio=0.4), keep_ratio=0.4),
]  # fmt: skip


@pytest.mark.parametrize("pruner", SERVED, ids=repr)
def test_a_method_and_its_settings_are_one(pruner: Any) -> None:
    assert pruner_of(canonical(settings_of(pruner)), "qwen2_5_vl", 28) == pruner


def test_a_class_without_a_name() -> None:
    class Own(DivPrune):
        pass

    with pytest.raises(UserError, match=r"^Own has no name by which a request could choose it"):
        settings_of(Own())


def test_auto_is_before_the_language_model() -> None:
    backend = VLLMBackend()
    assert backend.fitted(IVCOnly()) == IVCOnly(layer=0)
    assert backend.fitted(IVCOnly(layer=3)) == IVCOnly(layer=3)
    assert backend.fitted(PlusIVC(base=IVCOnly())).base == IVCOnly(layer=0)
    assert backend.fitted(NoPruning()) == NoPruning()


@pytest.mark.parametrize(
    ("pruner", "sentence"),
    [
        (FastV(layer=2), r"^vLLM can prune before the language model only"),
        (IVCPrune(layer=4), r"^vLLM can prune before the language model only"),
    ],
)
def test_methods_that_are_refused(pruner: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        VLLMBackend().check(family_of(None), pruner)


def test_families_that_are_refused() -> None:
    with pytest.raises(UserError, match=r"^backend=vllm answers with qwen2_vl, .*; got llava"):
        VLLMBackend().check(Llava15(), DivPrune())


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_an_environment_without_vllm() -> None:
    with pytest.raises(UserError, match=r'^backend=vllm needs vLLM: pip install "ivcp\[vllm\]"'):
        VLLMBackend().check(family_of(None), DivPrune())


def test_generation_settings() -> None:
    VLLMBackend().check_generation({"max_new_tokens": 3, "do_sample": True, "num_beams": None})
    with pytest.raises(UserError, match=r"^backend=vllm takes .*; got num_beams, use_cache: leave"):
        VLLMBackend().check_generation({"num_beams": 2, "use_cache": True})


def test_every_method_by_name_is_served_or_refused_in_a_sentence() -> None:
    from ivcp.core.pruner import Pruner

    kinds: dict[str, Any] = available("pruners", Pruner, "ivcp.pruners")  # type: ignore[type-abstract]
    outcomes: dict[str, Any] = {}
    for name in kinds:
        try:
            outcomes[name] = pruner_of(canonical({"pruner": name}), "qwen2_5_vl", 28)
        except UserError as error:
            outcomes[name] = str(error)
    served = {name for name, outcome in outcomes.items() if not isinstance(outcome, str)}
    assert served >= {"none", "divprune", "cdpruner", "ivc", "pool", "visionzip", "vispruner"}
    assert not served & {"fastv", "sparsevlm", "pyramiddrop", "dart", "downsample", "ivcp"}
