"""Decoding inside a session: layers have hooks only in passes that need them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from test_hostile_use import (
    COUNT,
    LAYER,
    METHODS,
    ONE,
    OUTSIDE,
    RAGGED,
    close,
    has_axes,
    in_threads,
    run,
)
from test_invariants import build
from torch import Tensor
from transformers import DynamicCache

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.engine.continuation import Continuation
from ivcp.engine.hook import Hook
from ivcp.models import find_family
from ivcp.pruners.none import NoPruning
from ivcp.testing import SMALL, batch_of, model_of, prompts, single

PLAIN = ["uniform", "ivcp", "visionzip"]
DIFFERENT = ["uniform, earlier KV whole", "fastv", "sparsevlm", "pyramiddrop"]


def layers_of(model: Any) -> Any:
    return find_family(model).decoder(model).layers


@contextmanager
def hooks_in_layers(model: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """For each forward pass, the number of hooks that its layers have while they run."""
    counts: list[int] = []

    def counting(layer: Any, forward: Callable[..., Any], is_layer_0: bool) -> Callable[..., Any]:
        @functools.wraps(forward)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if is_layer_0:
                counts.append(0)
            counts[-1] += len(layer._forward_pre_hooks) + len(layer._forward_hooks)
            return forward(*args, **kwargs)

        return counted

    with monkeypatch.context() as patch:
        for index, layer in enumerate(layers_of(model)):
            patch.setattr(layer, "forward", counting(layer, layer.forward, index == 0))
        yield counts


def calls_of_hooks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The hooks that do something, one entry a call, of sessions that begin from now on."""
    calls: list[Any] = []
    make = Hook.__init__

    def counted(self: Hook, call: Any, idle: Any) -> None:
        make(self, call, idle)
        call_hook = self.call
        self.call = lambda *args: (calls.append(call), call_hook(*args))[1]

    monkeypatch.setattr(Hook, "__init__", counted)
    return calls


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("name", [*PLAIN, "none"])
def test_nothing_runs_where_all_layers_hold_the_same_tokens(
    family: str, name: str, monkeypatch: pytest.MonkeyPatch, greedy: Any
) -> None:
    model, calls = model_of(family), calls_of_hooks(monkeypatch)
    inputs = prompts([5, SMALL[family].images[0], 9], family=family).inputs
    with (
        hooks_in_layers(model, monkeypatch) as hooks,
        pruned(model, METHODS.get(name, NoPruning())),
    ):
        greedy(model, inputs, 1)
        of_prefill = len(calls)
        greedy(model, inputs, 4)
    assert len(calls) == 2 * of_prefill
    assert hooks == [6, 6, 0, 0, 0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", DIFFERENT)
def test_a_row_without_padding_needs_no_hooks_in_layers(
    name: str, attention: str, monkeypatch: pytest.MonkeyPatch, greedy: Any
) -> None:
    """Layers that differ: a new token attends to all that each of them stores."""
    model = model_of("llava15", attention)
    with hooks_in_layers(model, monkeypatch) as hooks, pruned(model, METHODS[name]) as session:
        greedy(model, ONE.inputs, 3)
    assert hooks == [6, 0, 0]
    assert len({length for (length,) in session.cache_lengths}) > 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("name", "hooked"),
    [*[(name, 0) for name in PLAIN], *[(name, 6) for name in [*DIFFERENT, "ivcp, renumbered"]]],
)
def test_unequal_rows(
    name: str, hooked: int, attention: str, monkeypatch: pytest.MonkeyPatch, greedy: Any
) -> None:
    """One mask for the language model, or masks for the layers where these differ, too."""
    model = model_of("llava15", attention)
    with pruned(model, METHODS[name]):
        with hooks_in_layers(model, monkeypatch) as hooks:
            together = torch.stack(greedy(model, RAGGED.inputs, 4).logits, 1)
        for row in (0, 1):
            alone = torch.stack(greedy(model, single(RAGGED, row), 4).logits, 1)
            # the row's own answer goes on: only up to the first token that differs are they alike
            assert torch.equal(alone[0].argmax(-1), together[row].argmax(-1))
            close(together[row], alone[0])
        assert hooks == [6, *[hooked] * 3]
        assert not any(layer._forward_pre_hooks for layer in layers_of(model))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llava15", "qwen25vl"])
@pytest.mark.parametrize("name", ["pool", "ivcp"])
def test_arguments_of_the_language_model_are_those_of_its_layers(
    family: str, name: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of unequal rows, renumbered before layer 0 or not: all layers are pruned alike."""
    model, batch, token = model_of(family, attention), batch_of(family), torch.full((4, 1), 40)
    method = build(name, 0.4, **({"renumber": True} if name == "pool" else {}))
    mask = torch.cat([batch.inputs["attention_mask"], torch.ones_like(token)], 1)
    positions = (mask.sum(1, keepdim=True) - 1).expand(*([3] if has_axes(family) else []), 4, 1)
    step = {"input_ids": token, "attention_mask": mask, "position_ids": positions}
    result = []
    for hides_inputs in (False, True):
        with monkeypatch.context() as patch, pruned(model, method):
            if hides_inputs:  # every layer gets its own arguments instead
                patch.setattr(Continuation, "language_model_inputs", lambda *_: None)
            cache = DynamicCache()
            run(model, batch.inputs, past_key_values=cache)
            with hooks_in_layers(model, monkeypatch) as hooks:
                result.append(run(model, step, past_key_values=cache).logits)
            assert hooks == [6 * hides_inputs]
    assert cache.layers[0].renumbered == (name == "pool")
    close(*result)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_after_a_pass_that_failed(error: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SMALL["llava15"].model()
    layers = layers_of(model)

    def fail(*_: Any) -> None:
        raise error("stop")

    with pruned(model, METHODS["fastv"]):
        handle = layers[4].register_forward_hook(fail)
        with pytest.raises(error, match="stop"):
            run(model, ONE.inputs)
        handle.remove()
        if error is RuntimeError:  # torch runs no hooks behind an interrupt
            assert not any(layer._forward_pre_hooks for layer in layers)
        run(model, ONE.inputs)
        assert not any(layer._forward_pre_hooks for layer in layers)


def test_order_of_hooks() -> None:
    """Hooks from before the session run before its own, later ones behind them."""
    model, sizes = SMALL["llava15"].model(), {"before": [], "inside": []}
    layer = layers_of(model)[LAYER]
    note = {
        key: lambda _, args, key=key: sizes[key].append(args[0].shape[1])  # type: ignore[misc]
        for key in sizes
    }
    layer.register_forward_pre_hook(note["before"])
    with pruned(model, METHODS["uniform"]):
        layer.register_forward_pre_hook(note["inside"])
        for _ in range(2):
            run(model, ONE.inputs)
    length = ONE.lengths[0]
    assert sizes == {"before": [length] * 2, "inside": [length - COUNT // 2] * 2}


def test_a_thread_decodes_while_another_one_prefills(greedy: Any) -> None:
    """Hooks come and go around the decoding thread, which needs none."""
    model = model_of("llava15")
    with pruned(model, METHODS["uniform"]):
        expected, short = (greedy(model, ONE.inputs, count).sequences for count in (40, 1))

        def decode() -> None:
            for _ in range(3):
                assert torch.equal(greedy(model, ONE.inputs, 40).sequences, expected)

        def prefill() -> None:
            for _ in range(60):
                assert torch.equal(greedy(model, ONE.inputs, 1).sequences, short)

        in_threads(decode, prefill)


def test_a_hook_that_another_thread_is_removing() -> None:
    """Torch calls it without keyword arguments once its entry of `with_kwargs` is gone."""
    model = model_of("llava15")
    with pruned(model, METHODS["uniform"]):
        (hook,) = _layer_hooks(model)
        assert hook(layers_of(model)[0], (torch.zeros(1, 1, 64),)) is None


def _layer_hooks(model: Any) -> list[Any]:
    seen: list[Any] = []
    layer = layers_of(model)[0]
    handle = layer.register_forward_hook(
        lambda module, *_: seen.extend(module._forward_pre_hooks.values())
    )
    run(model, ONE.inputs)
    handle.remove()
    assert len(seen) == 1
    return seen


def right_padded() -> dict[str, Tensor]:
    """The one prompt with two columns of padding on its right."""
    inputs = dict(ONE.inputs)
    for key in ("input_ids", "attention_mask"):
        inputs[key] = torch.nn.functional.pad(inputs[key], (0, 2))
    return inputs


def test_padding_on_the_right_then_decoding() -> None:
    """The library would take the padding's columns for slots that hold tokens."""
    model, length = model_of("llava15"), ONE.lengths[0]
    step = {"input_ids": torch.full((1, 1), 40), "position_ids": torch.tensor([[length]])}
    mask = torch.cat([right_padded()["attention_mask"], torch.ones(1, 1, dtype=torch.long)], 1)
    with pruned(model, METHODS["uniform"]):
        cache, padded = DynamicCache(), DynamicCache()
        run(model, ONE.inputs, past_key_values=cache)
        expected = run(model, step, past_key_values=cache).logits
        positions = (right_padded()["attention_mask"].cumsum(1) - 1).clamp_min(0)
        run(model, {**right_padded(), "position_ids": positions}, past_key_values=padded)
        result = run(model, {**step, "attention_mask": mask}, past_key_values=padded).logits
    close(result, expected)
    with pytest.raises(UserError, match=OUTSIDE):
        run(model, {**step, "attention_mask": mask}, past_key_values=padded)


def test_decoding_after_an_entry_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the entry has read of a failed pass is not taken for the next step's."""
    model, step = SMALL["llava15"].model(), {"input_ids": torch.full((2, 1), 40)}
    mask = torch.cat([RAGGED.inputs["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
    result = []
    with pruned(model, METHODS["fastv"]):
        for fails in (False, True):
            cache = DynamicCache()
            run(model, RAGGED.inputs, past_key_values=cache)
            if fails:
                with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop"):
                    patch.setattr(model.model, "get_image_features", _fails)
                    run(model, ONE.inputs)
            entry = model.model.language_model
            embeds = model.get_input_embeddings()(step["input_ids"])
            out = run(
                entry, {"inputs_embeds": embeds, "attention_mask": mask}, past_key_values=cache
            )
            result.append(out.last_hidden_state)
    close(*result)


def _fails(*_: Any, **__: Any) -> None:
    raise RuntimeError("stop")


def test_hooks_of_a_closed_session_are_gone() -> None:
    """Those in layers, too, if its last pass was interrupted."""
    model = SMALL["llava15"].model()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = layers_of(model)[4].register_forward_hook(interrupt)
    with pruned(model, METHODS["fastv"]), pytest.raises(KeyboardInterrupt):
        run(model, ONE.inputs)
    handle.remove()
    for module in model.modules():
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        assert not any(isinstance(hook, Hook) for hook in hooks)


def test_a_step_with_labels_has_a_loss() -> None:
    """It has no next token, so the library's loss is the mean of nothing."""
    model, cache, token = model_of("llava15"), DynamicCache(), torch.full((1, 1), 40)
    with pruned(model, METHODS["uniform"]):
        run(model, ONE.inputs, past_key_values=cache)
        step = run(model, {"input_ids": token, "labels": token}, past_key_values=cache)
    assert step.loss.isnan()
