"""Static caches: what `generate` decodes with them equals what it decodes with dynamic ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_hostile_use import COUNT, LAYER, METHODS, ONE, QUIET, RAGGED, SIDE, close, llava, run
from test_invariants import build, kinds_of, with_keys
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import CompileConfig, DynamicCache, GenerationConfig, StaticCache

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.engine.static_cache import PrunedStaticLayer
from ivcp.pruners.fastv import FastV
from ivcp.testing import SMALL, batch_of, model_of, prompts, single

STATIC = {"cache_implementation": "static"}
every_family = pytest.mark.parametrize("family", SMALL)


def answer(model: Any, inputs: dict[str, Tensor], tokens: int = 6, **options: Any) -> Any:
    return model.generate(
        **inputs, max_new_tokens=tokens, output_logits=True, return_dict_in_generate=True,
        **{**QUIET, **options},
    )  # fmt: skip


def same(result: Any, expected: Any) -> None:
    assert torch.equal(result.sequences, expected.sequences)
    close(torch.stack(result.logits), torch.stack(expected.logits))


def compiled() -> dict[str, Any]:
    """Settings with which the library compiles decoding on the CPU, too."""
    config = CompileConfig(backend="eager", mode="default")
    config._compile_all_devices = True
    return {**STATIC, "compile_config": config}


@every_family
@pytest.mark.parametrize("name", ["ivcp", "uniform", "visionzip", "pool"])
@pytest.mark.parametrize("rows", ["unequal", "alone"])
def test_tokens_are_those_of_a_dynamic_cache(family: str, name: str, rows: str) -> None:
    model, batch = model_of(family), batch_of(family)
    inputs = batch.inputs if rows == "unequal" else single(batch, 1)
    if "sliding" in kinds_of(family):
        sentence = r"a static one without StaticSlidingWindowLayer"
        with pruned(model, build(name, 0.4)), pytest.raises(UserError, match=sentence):
            answer(model, inputs, **STATIC)
        return
    with pruned(model, build(name, 0.4, family)) as session:
        expected = answer(model, inputs)
        lengths = session.cache_lengths
        result = answer(model, inputs, **STATIC)
        assert session.cache_lengths == lengths
    same(result, expected)
    layers = [result.past_key_values.layers[index] for index in with_keys(family)]
    slots = max(lengths[-1]) + 6 - 1
    for layer in layers:
        assert type(layer) is PrunedStaticLayer
        assert layer.keys.shape[2] == layer.max_cache_len == slots
    assert int(result.past_key_values.get_seq_length()) == inputs["input_ids"].shape[1] + 5


@every_family
def test_compiled_decoding(family: str) -> None:
    """One graph for all steps and prompts of a size, without a break at any hook."""
    if "sliding" in kinds_of(family):
        pytest.skip("its static caches are refused")
    layers = 3 if "linear" in kinds_of(family) else 2  # a layer of each kind
    model, batch = SMALL[family].model(layers=layers), batch_of(family)
    torch.compiler.reset()
    counters.clear()
    with pruned(model, build("uniform", 0.4, layer=1)):
        expected = answer(model, batch.inputs)
        same(answer(model, batch.inputs, **compiled()), expected)
        graphs = counters["stats"]["unique_graphs"]
        same(answer(model, batch.inputs, **compiled()), expected)
        assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
    assert graphs == 1


@pytest.mark.parametrize("where", ["config", "model's config"])
def test_static_by_configuration(where: str) -> None:
    model = SMALL["llava15"].model()
    with pruned(model, METHODS["ivcp"]):
        expected = answer(model, ONE.inputs)
        config = model.generation_config
        if where == "config":
            config = GenerationConfig(eos_token_id=None)
        config.cache_implementation = "static"
        options = {"generation_config": config} if where == "config" else {}
        result = answer(model, ONE.inputs, **options)
    same(result, expected)
    assert type(result.past_key_values.layers[0]) is PrunedStaticLayer


def test_nothing_is_dropped() -> None:
    model = model_of("llava15")
    with pruned(model, build("uniform", 1.0)):
        same(answer(model, RAGGED.inputs, **STATIC), answer(model, RAGGED.inputs))


@pytest.mark.parametrize("batch", [ONE, RAGGED], ids=["one", "unequal"])
def test_beams(batch: Any) -> None:
    model, options = model_of("llava15"), {"num_beams": 3}
    with pruned(model, METHODS["ivcp"]):
        expected = answer(model, batch.inputs, **options).sequences
        assert torch.equal(answer(model, batch.inputs, **options, **STATIC).sequences, expected)


def test_sampling() -> None:
    model, result = model_of("llava15"), []
    with pruned(model, METHODS["ivcp"]):
        for options in ({}, STATIC):
            torch.manual_seed(3)
            result.append(answer(model, RAGGED.inputs, do_sample=True, **options).sequences)
    assert torch.equal(*result)


def test_text_alone_takes_the_librarys_way() -> None:
    model, text = model_of("llava15"), prompts([4], [19], family="llava15").inputs
    plain = answer(model, text, **STATIC)
    with pruned(model, METHODS["fastv"]):
        same(answer(model, text, **STATIC), plain)


def test_a_shorter_prompt_gets_a_cache_of_the_same_size() -> None:
    """As the library does, so that compiled code of the longer prompt serves the shorter one."""
    model = model_of("llava15")
    with pruned(model, METHODS["ivcp"]):
        long, short = llava(5, SIDE, 30), llava(5, SIDE, 8)
        sizes = [
            answer(model, batch.inputs, **STATIC).past_key_values.layers[0].keys.shape[2]
            for batch in (short, long, short)
        ]
        assert sizes == [13 + COUNT // 2 + 5, 35 + COUNT // 2 + 5, 35 + COUNT // 2 + 5]
        if not hasattr(GenerationConfig(), "max_cache_len"):
            pytest.skip("generate of this transformers has no max_cache_len")
        ceiling = answer(model, short.inputs, max_cache_len=90, **STATIC)
        assert ceiling.past_key_values.layers[0].keys.shape[2] == 90


def user_cache(model: Any, slots: int = 120, **options: Any) -> StaticCache:
    return StaticCache(config=model.config.text_config, max_cache_len=slots, **options)


@pytest.mark.parametrize("inside", [True, False])
def test_a_users_cache_goes_on_with_text(inside: bool) -> None:
    """The object that the user made holds the pruned prompt, in and outside of the block."""
    model, text = model_of("llava15"), torch.full((1, 4), 33)
    result = []
    for cache in (DynamicCache(), user_cache(model)):
        with pruned(model, METHODS["ivcp"]):
            first = answer(model, ONE.inputs, past_key_values=cache)
            ids = torch.cat([first.sequences, text], 1)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if inside:
                result.append(answer(model, inputs, past_key_values=cache))
        if not inside:
            result.append(answer(model, inputs, past_key_values=cache))
    same(*result)
    assert cache.layers[0].max_cache_len == 120


def test_a_cache_that_was_reset() -> None:
    model = model_of("llava15")
    cache = user_cache(model)
    with pruned(model, METHODS["ivcp"]):
        expected = answer(model, ONE.inputs, past_key_values=cache)
        cache.reset()
        assert int(cache.get_seq_length()) == 0
        same(answer(model, ONE.inputs, past_key_values=cache), expected)
    cache.reset()
    text = llava(14).inputs
    same(answer(model, text, past_key_values=cache), answer(model, text))


# --- what is refused


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("the language model has run")


ALIKE = r"^A static KV cache needs all layers to store the same tokens"


@pytest.mark.parametrize(
    "name",
    ["fastv", "sparsevlm", "pyramiddrop", "uniform, earlier KV whole", "ivcp, renumbered"],
)
def test_layers_that_differ_are_refused_before_the_prefill(name: str) -> None:
    model = SMALL["llava15"].model()
    handle = model.model.language_model.layers[0].register_forward_pre_hook(never)
    with pruned(model, METHODS[name]), pytest.raises(UserError, match=ALIKE):
        answer(model, ONE.inputs, **STATIC)
    handle.remove()
    with pruned(model, FastV(keep_ratio=0.5, layer=LAYER, prune_earlier_kv=True)):
        same(answer(model, ONE.inputs, **STATIC), answer(model, ONE.inputs))


def test_refused_caches() -> None:
    model = SMALL["llava15"].model()
    handle = model.model.language_model.layers[0].register_forward_pre_hook(never)
    small, filled = user_cache(model, 30), user_cache(model)
    filled.early_initialization(1, 2, 16, torch.float32, torch.device("cpu"))
    filled.layers[0].cumulative_length.fill_(7)
    offloading = user_cache(model)
    offloading.offloading = True  # what StaticCache(offloading=True) is on a GPU
    with pruned(model, METHODS["ivcp"]):
        with pytest.raises(UserError, match=r"^A static KV cache that holds tokens cannot take an"):
            answer(model, ONE.inputs, past_key_values=filled)
        with pytest.raises(UserError, match=r"^Pruning needs .* without offloading"):
            answer(model, ONE.inputs, past_key_values=offloading)
        handle.remove()
        with pytest.raises(UserError, match=r"^The static KV cache has 30 slots, and 40 tokens"):
            answer(model, ONE.inputs, past_key_values=small)


def test_a_cache_of_unequal_rows_ends_with_its_generate() -> None:
    """Its mask is known to that call alone."""
    model, text = model_of("llava15"), torch.full((2, 1), 33)
    with pruned(model, METHODS["ivcp"]):
        out = answer(model, RAGGED.inputs, **STATIC)
        with pytest.raises(UserError, match=r"^This static KV cache was pruned so that its rows"):
            run(model, {"input_ids": text}, past_key_values=out.past_key_values)
    with pytest.raises(UserError, match=r"^This static KV cache was pruned so that its rows"):
        run(model, {"input_ids": text}, past_key_values=out.past_key_values)
    out.past_key_values.reset()
    run(model, {"input_ids": text}, past_key_values=out.past_key_values)


def test_unequal_rows_in_a_generate_from_before_the_block() -> None:
    model = SMALL["llava15"].model()
    generate, options = model.generate, {"max_new_tokens": 4, **QUIET, **STATIC}
    with pruned(model, METHODS["ivcp"]):
        with pytest.raises(UserError, match=r"looked up inside pruned\(\): call model.generate"):
            generate(**RAGGED.inputs, **options)
        assert torch.equal(
            generate(**ONE.inputs, **options), model.generate(**ONE.inputs, **options)
        )


def test_after_a_refused_prefill() -> None:
    """The next call is right, and so is the model behind the block."""
    model = SMALL["llava15"].model()
    plain = answer(model, ONE.inputs, **STATIC)
    with pruned(model, METHODS["fastv"]):
        expected = answer(model, ONE.inputs)
        with pytest.raises(UserError, match=ALIKE):
            answer(model, ONE.inputs, **STATIC)
        same(answer(model, ONE.inputs), expected)
    same(answer(model, ONE.inputs, **STATIC), plain)
    assert "_prefill" not in vars(model)
