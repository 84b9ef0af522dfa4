"""Layers with linear attention: where signals can be read, what their states hold, and for whom."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from test_hostile_use import METHODS, close, dialogue, run
from test_invariants import on_disk
from transformers import DynamicCache

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.layer_kinds import LayerKind
from ivcp.core.pairing import fit_pair
from ivcp.core.pruner import Pruner
from ivcp.models import find_family
from ivcp.models.qwen3vl import Qwen3VL
from ivcp.models.qwen35 import Qwen35
from ivcp.pruners.compose import Compose
from ivcp.pruners.dart import DART
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivc import IVCOnly
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.plus_ivc import PlusIVC
from ivcp.pruners.pyramiddrop import PyramidDrop
from ivcp.pruners.random import RandomPruning
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.testing import SMALL, batch_of, model_of, prompts, single

FAMILY = "qwen35"
PUBLISHED: tuple[LayerKind, ...] = ("linear", "linear", "linear", "full") * 8
"""Qwen3.5-9B's 32 layers; small sizes have 24, the largest one 64."""


@pytest.mark.parametrize(
    ("method", "layers"),
    [
        (IVCPrune(), (16,)),
        (IVCPrune(two_pass=True), (0,)),
        (RandomPruning(), (16,)),
        (FastV(layer="auto"), (16,)),
        (SparseVLM(), (4, 8, 16)),
        (PyramidDrop(), (7, 15, 23)),
        (PlusIVC(base=DART(layer="auto")), (16,)),
        (Compose(parts=(RandomPruning(layer=2), SparseVLM())), (2, 4, 8, 16)),
    ],
    ids=repr,
)
def test_layers_by_default_are_such_that_can_be_read(
    method: Pruner, layers: tuple[int, ...]
) -> None:
    fitted = method.fitted("qwen3_5", 32, kinds=PUBLISHED)
    assert tuple(stage.layer for stage in fitted.stages()) == layers
    assert fitted.first_pass() == 4 * ("two_pass=True" in repr(method))


@pytest.mark.parametrize("kinds", [PUBLISHED[:24], PUBLISHED * 2], ids=len)
def test_controls_prune_before_the_layer_of_the_method(kinds: tuple[LayerKind, ...]) -> None:
    fitted = [method.fitted("", len(kinds), kinds=kinds) for method in (IVCPrune(), IVCOnly())]
    assert fitted[0].stages()[0].layer == fitted[1].stages()[0].layer == len(kinds) // 2


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (FastV(layer=2), r"^FastV reads attention of layer 1, but .* are 4; got layer 2\.$"),
        (IVCPrune(layer=18), r"^IVCPrune reads values of layer 17, .* 16 and 20; got layer 18\.$"),
        (
            PyramidDrop(layers=(8, 15)),
            r"^PyramidDrop reads attention.* of layer 8, .* 7 and 11; got layer 8\.$",
        ),
        (
            IVCPrune(layer=31, two_pass=True),
            r"^IVCPrune reads values of layer 30, .* are 28 and 32; got first pass of 31\.$",
        ),
    ],
    ids=repr,
)
def test_other_layers_are_refused_before_weights_load(
    method: Pruner, sentence: str, tmp_path: Path
) -> None:
    Qwen35()._model_class().config_class().save_pretrained(tmp_path)  # the defaults are the 9B's
    with pytest.raises(UserError, match=sentence):
        fit_pair(method, Qwen35(path=str(tmp_path)), "Qwen3.5")
    assert fit_pair(RandomPruning(layer=2), Qwen35(path=str(tmp_path)), "Qwen3.5")


def test_other_layers_are_refused_in_a_session() -> None:
    with pytest.raises(
        UserError, match=r"of layer 3, but .* that can be set are 3 and 5; got layer 4"
    ):
        pruned(model_of(FAMILY), FastV(layer=4)).__enter__()


def test_a_family_says_which_kinds_it_supports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Qwen35, "supported_kinds", Qwen3VL.supported_kinds)
    with pytest.raises(UserError, match=r"does not support this model's linear-attention layers"):
        pruned(model_of(FAMILY), RandomPruning(layer=2)).__enter__()


def test_kinds_of_layers_that_are_not_known() -> None:
    config = SMALL["llava15"].config()
    config.text_config.layer_types = ["full_attention"] * 5 + ["conv"]
    with pytest.raises(UserError, match=r"^Pruning supports decoder layers of .* the model has c"):
        find_family(model_of("llava15")).layer_kinds(config)


def cached(method: Pruner, inputs: dict[str, Any]) -> Any:
    cache = DynamicCache(config=model_of(FAMILY).config)
    with pruned(model_of(FAMILY), method):
        run(model_of(FAMILY), inputs, past_key_values=cache)
    return cache


def states(cache: Any, layer: int) -> list[torch.Tensor]:
    return [cache.layers[layer].conv_states[0], cache.layers[layer].recurrent_states[0]]


def test_the_state_before_the_cut_holds_all_tokens_and_the_one_behind_the_kept_ones() -> None:
    model, batch = model_of(FAMILY), batch_of(FAMILY)
    inputs = single(batch, 1)
    plain = DynamicCache(config=model.config)
    run(model, inputs, past_key_values=plain)
    found = cached(RandomPruning(keep_ratio=0.3, layer=3), inputs)
    for state, expected in zip(states(found, 0), states(plain, 0), strict=True):
        assert torch.equal(state, expected)
    assert not torch.allclose(states(found, 3)[1], states(plain, 3)[1])
    assert found.layers[1].keys.shape == found.layers[4].keys.shape
    assert found.layers[1].keys.shape[2] < plain.layers[1].keys.shape[2]


def test_padding_does_not_enter_states() -> None:
    """Rows that keep different numbers of tokens are padded on the left, behind the cut too."""
    batch = prompts([5, (6, 9), 7], [13, (4, 5), 40], [9], family=FAMILY)
    method = RandomPruning(keep_ratio=0.3, layer=3)
    together = cached(method, batch.inputs)
    for row in range(3):
        alone = cached(method, single(batch, row))
        for layer in (0, 3):
            for joint, one in zip(states(together, layer), states(alone, layer), strict=True):
                torch.testing.assert_close(joint[row], one[0], atol=1e-5, rtol=1e-4)


def test_padding_between_turns_is_refused() -> None:
    model, image = model_of(FAMILY), (4, 5)
    turns = [
        prompts([5, image, 7], [13, image, 12], family=FAMILY),
        prompts([3], [8], family=FAMILY),
    ]
    for row in (0, 1):  # a row alone goes on
        dialogue(model, turns, METHODS["ivcp"], row)
    sentence = r"^This model's linear-attention layers would read the padding between two turns"
    with pytest.raises(UserError, match=sentence):
        dialogue(model, turns, METHODS["ivcp"])
    turns[1] = prompts([3, image, 2], [8, image, 4], family=FAMILY)
    with pytest.raises(UserError, match=sentence):
        dialogue(model, turns, METHODS["uniform"])
    turns[1] = prompts([8, (4, 5), 2], [3, (5, 5), 2], family=FAMILY)  # equal until the cut
    with pytest.raises(UserError, match=sentence):
        dialogue(model, turns, METHODS["uniform"])


def test_a_cache_that_needs_a_session_changes_nothing_outside() -> None:
    """Its first layer is linear: it must refuse before it adds a token to its state."""
    model, inputs = model_of(FAMILY), single(batch_of(FAMILY), 1)
    method = RandomPruning(keep_ratio=0.3, layer=3, prune_earlier_kv=False)
    cache, step = cached(method, inputs), {"input_ids": torch.full((1, 1), 40)}
    before = deepcopy(states(cache, 0))
    with pytest.raises(UserError, match=r"go on with it inside pruned"):
        run(model, step, past_key_values=cache)
    assert all(map(torch.equal, before, states(cache, 0)))
    with pruned(model, method):
        inside = run(model, step, past_key_values=cache).logits
    other = cached(method, inputs)
    with pruned(model, method):
        close(inside, run(model, step, past_key_values=other).logits)
        other.reset()
        run(model, inputs, past_key_values=other)
    assert all(map(torch.equal, before, states(other, 0)))


def test_a_cache_without_states_is_refused() -> None:
    inputs = single(batch_of(FAMILY), 1)
    with (
        pruned(model_of(FAMILY), RandomPruning(layer=3)),
        pytest.raises(UserError, match=r"pass DynamicCache\(config=model\.config\)"),
    ):
        run(model_of(FAMILY), inputs, past_key_values=DynamicCache())


def test_states_count_as_bytes_of_the_cache_and_not_as_tokens() -> None:
    inputs, sizes = single(batch_of(FAMILY), 1), []
    for ratio in (0.3, 1.0):
        with pruned(model_of(FAMILY), RandomPruning(keep_ratio=ratio, layer=3)) as session:
            run(model_of(FAMILY), inputs)
        tokens = [length for (length,) in session.cache_lengths]
        assert tokens[0] == tokens[3] == 0
        sizes.append(session.cache_bytes - 4 * SMALL[FAMILY].cache_width * sum(tokens))
    assert sizes == [4 * SMALL[FAMILY].state_width] * 2


def test_every_default_of_a_yaml_fits_the_published_sizes() -> None:
    """A yaml that names a layer of its own needs a tuned file beside, one for each size."""
    conf = Path(__file__).parents[2] / "conf"
    sizes = sorted(path.stem for path in (conf / "model").glob("qwen35*.yaml"))
    fixed = [name for name in ("fastv", "dart") if str(on_disk(name).layer) != "auto"]
    tuned = {path.stem for path in (conf / "tuned").glob("*__qwen35*.yaml")}
    assert tuned >= {f"{name}__{size}" for name in fixed for size in sizes}
