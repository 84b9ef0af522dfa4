"""What `backend=vllm` serves, and what it refuses before anything is loaded."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

import lightning
import pytest
from transformers import GenerationConfig

import ivcp
from ivcp import DivPrune, FastV, IVCPrune, NoPruning
from ivcp.core.backend import fitted_for
from ivcp.core.errors import UserError
from ivcp.core.selection import Selection
from ivcp.datasets.shapes import Shapes
from ivcp.evaluation.trainer import make_trainer
from ivcp.integrations.choices import available
from ivcp.integrations.vllm.backend import VLLMBackend, visible_gpus
from ivcp.integrations.vllm.sampling import NEUTRAL, sampling
from ivcp.integrations.vllm.settings import canonical, pruner_of, settings_of
from ivcp.integrations.vllm.worker import reasons
from ivcp.models import find_family
from ivcp.models.llava15 import Llava15
from ivcp.models.loaded import family_of
from ivcp.pruners.ivc import IVCOnly
from ivcp.pruners.plus_ivc import PlusIVC
from ivcp.pruners.random import RandomPruning
from ivcp.pruners.visionzip import VisionZip
from ivcp.results.comparability import differing
from ivcp.results.provenance import identity_of

GENERATION = {"max_new_tokens": 4, "do_sample": False}

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
        VLLMBackend().check(family_of(None), pruner, GENERATION)


def test_families_that_are_refused() -> None:
    with pytest.raises(UserError, match=r"^backend=vllm answers with qwen2_vl, .*; got llava"):
        VLLMBackend().check(Llava15(), DivPrune(), GENERATION)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_an_environment_without_vllm() -> None:
    with pytest.raises(UserError, match=r'^backend=vllm needs vLLM: pip install "ivcp\[vllm\]"'):
        VLLMBackend().check(family_of(None), DivPrune(), GENERATION)


def test_settings_of_a_device_map_or_of_the_run() -> None:
    with pytest.raises(UserError, match=r"^model\.device_map is of no use with backend=vllm"):
        VLLMBackend().check(family_of(None, device_map="auto"), DivPrune(), GENERATION)
    for name in ("dtype", "data_parallel_size", "trust_remote_code"):
        with pytest.raises(UserError, match=rf"^backend\.engine\.{name} cannot be set: "):
            VLLMBackend(engine={name: 2})
    with pytest.raises(UserError, match=r"^Settings of a backend need backend=vllm"):
        fitted_for({"tensor_parallel_size": 2}, DivPrune())
    assert fitted_for({}, IVCOnly()) == IVCOnly()


def test_a_model_that_is_loaded_stays_where_it_is() -> None:
    model, _ = ivcp.load()
    with pytest.raises(UserError, match=r"evaluated where it is, by one process; for backend="):
        ivcp.evaluate(model, backend="vllm")


@pytest.mark.parametrize(
    "keywords", [{"devices": 2}, {"devices": [1]}, {"strategy": "ddp_spawn"}, {"num_nodes": 2}]
)
def test_processes_beside_a_server(keywords: dict[str, Any]) -> None:
    (name,) = keywords
    with pytest.raises(UserError, match=rf"^trainer\.{name}=.* is of no use with backend=vllm"):
        make_trainer(partial(lightning.Trainer, **keywords), [], servers=1)
    made = make_trainer(partial(lightning.Trainer, accelerator="auto"), [], servers=1)
    assert made.strategy.root_device.type == "cpu"
    made = make_trainer(partial(lightning.Trainer, accelerator="auto"), [], servers=2)
    assert made.world_size == 2


def test_engines_that_share_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    assert visible_gpus() == ["4", "6", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1", "2"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    backend = VLLMBackend(tensor_parallel_size=2, data_parallel_size=2)
    with pytest.raises(UserError, match=r"needs 4 GPUs; 3 are visible\.$"):
        backend.check(family_of(None), DivPrune(layer=0), GENERATION)
    for name in ("tensor_parallel_size", "data_parallel_size"):
        with pytest.raises(UserError, match=rf"^backend\.{name} must be at least 1; got 0\.$"):
            VLLMBackend(**{name: 0})


QWEN = {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.8, "eos_token_id": [5, 3],
        "repetition_penalty": 1.05, "pad_token_id": 3, "transformers_version": "4"}  # fmt: skip
"""What checkpoints of Qwen2.5-VL store."""
ENDS = {"stop_token_ids": [5, 3], "ignore_eos": True}


@pytest.mark.parametrize(
    ("generation", "wanted"),
    [
        (
            {"do_sample": False},
            {"temperature": 0.0, "repetition_penalty": 1.05, **ENDS},
        ),
        (  # which greedy decoding passes over
            {"do_sample": False, "temperature": 0.7, "top_k": 9, "use_cache": True},
            {"temperature": 0.0, "repetition_penalty": 1.05, **ENDS},
        ),
        (
            {"temperature": 0.5, "top_p": None, "repetition_penalty": None, "min_p": 0.1},
            {"temperature": 0.5, "top_k": 1, "min_p": 0.1, **ENDS},
        ),
        (
            {"do_sample": False, "eos_token_id": 7, "min_new_tokens": 2, "num_beams": 1},
            {"temperature": 0.0, "repetition_penalty": 1.05, "min_tokens": 2,
             "stop_token_ids": [7], "ignore_eos": True},
        ),
    ],
)  # fmt: skip
def test_generation_settings(generation: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sampling({"max_new_tokens": 4, **generation}, QWEN) == {"max_tokens": 4, **wanted}


def test_what_the_library_takes_where_nobody_says_anything() -> None:
    defaults = GenerationConfig._get_default_generation_params()
    assert sampling({"max_new_tokens": 4, "do_sample": True}, {})["top_k"] == defaults["top_k"]
    neutral = {name: value for name, value in defaults.items() if name in NEUTRAL}
    assert neutral.items() <= NEUTRAL.items()


@pytest.mark.parametrize(
    ("generation", "stored", "sentence"),
    [
        (
            {"num_beams": 2},
            {},
            r"^generation\.num_beams=2, which has no counterpart in vLLM: leave",
        ),
        ({"cache_implementation": "static"}, {}, r"^generation\.cache_implementation='static'"),
        (
            {},
            {"no_repeat_ngram_size": 3},
            r"^The checkpoint sets no_repeat_ngram_size=3, .*: generation\.no_repeat_ngram_size=n",
        ),
        ({"do_sample": True, "temperature": 1e-6}, {}, r"^vLLM samples with a temperature of at"),
        ({"max_new_tokens": None}, {}, r"^backend=vllm needs generation\.max_new_tokens"),
    ],
)
def test_generation_settings_without_a_counterpart(
    generation: dict[str, Any], stored: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        sampling({"max_new_tokens": 4, **generation}, stored)
    sampling({"max_new_tokens": 4, **dict.fromkeys(stored)}, stored)


def test_answers_of_another_backend_are_another_run_s() -> None:
    """They differ in the last bits, and in what was measured."""
    plain, served = (
        identity_of({"backend": backend}, family_of(None), None)
        for backend in ({}, {"_target_": "ivcp.integrations.vllm.backend.VLLMBackend"})
    )
    assert differing(plain, served) == ["backend._target_"]


def test_reasons_are_those_of_a_session() -> None:
    """Also of tokens that a method merges."""
    model, processor = ivcp.load()
    family, pruner = find_family(model), VisionZip(keep_ratio=0.3)
    encoded = family.encode(processor, [Shapes(task="grounding", size=1)[0]])
    noted: list[Selection] = []

    class Noting(VisionZip):
        def select(self, view: Any, stage: int) -> Selection:
            noted.append(super().select(view, stage))
            return noted[-1]

    with ivcp.pruned(model, Noting(keep_ratio=pruner.keep_ratio)) as session:
        model.generate(**encoded.inputs, max_new_tokens=1)  # type: ignore[operator]
    (image,) = session.layouts[0].images
    words = reasons(noted[0])
    assert image.tokens[list(words)].tolist() == session.kept[0].tolist()
    assert list(words.values()) == session.reasons[0]
    assert {"merged"} < set(words.values())


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
