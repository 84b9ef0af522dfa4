"""What an expert may do inside a session: it works exactly, or one sentence comes."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from expected import EXPECTED
from families import takes_embeddings
from processing import setup
from torch import Tensor, nn
from transformers import (
    Cache,
    DynamicCache,
    GenerationConfig,
    QuantizedCache,
    StaticCache,
)
from transformers.cache_utils import StaticLayer

from ivcp import attach, pruned
from ivcp.core.errors import UserError
from ivcp.core.layer_kinds import layer_kinds
from ivcp.core.pruner import Pruner, Stage
from ivcp.core.selection import Selection
from ivcp.core.types import Sample
from ivcp.core.view import View
from ivcp.engine import layer_inputs
from ivcp.models import find_family
from ivcp.pruners.compose import Compose
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivc import IVCOnly
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning
from ivcp.pruners.pyramiddrop import PyramidDrop
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.pruners.uniform import UniformGrid
from ivcp.pruners.visionzip import VisionZip
from ivcp.testing import (
    EOS,
    IMAGE,
    PAD,
    SMALL,
    START,
    Prompts,
    model_of,
    prompts,
    random_model,
    single,
)

Inputs = dict[str, Any]
QUIET = {"suppress_tokens": [EOS, IMAGE, START], "pad_token_id": PAD, "do_sample": False}
SIDE = (6, 6)  # of LLaVA's images
COUNT = 36  # their visual tokens
LAYER = 3
"""Layer before which tokens leave here, of six."""

METHODS: dict[str, Pruner] = {
    "uniform": UniformGrid(keep_ratio=0.5, layer=LAYER),
    "uniform, earlier KV whole": UniformGrid(keep_ratio=0.5, layer=LAYER, prune_earlier_kv=False),
    "ivcp": IVCPrune(keep_ratio=0.5, layer=LAYER),
    "ivcp, renumbered": IVCPrune(keep_ratio=0.5, layer=LAYER, renumber=True),
    "ivcp, two passes": IVCPrune(keep_ratio=0.5, layer=LAYER, two_pass=True),
    "fastv": FastV(keep_ratio=0.5, layer=LAYER),
    "sparsevlm": SparseVLM(keep_ratio=0.5, layers=(2, 3, 5)),
    "pyramiddrop": PyramidDrop(keep_ratio=0.5, layers=(2, 4)),
    "visionzip": VisionZip(keep_ratio=0.5),
}
UNIFORM = METHODS["uniform"]
ONE_STAGE = ["uniform", "ivcp", "fastv"]  # which keep positions and states, so that hiding serves
every_family = pytest.mark.parametrize("family", SMALL)
every_method = pytest.mark.parametrize("name", METHODS)
one_stage = pytest.mark.parametrize("name", ONE_STAGE)


@dataclass(frozen=True, kw_only=True)
class Given(Pruner):
    """Answers what a test gives it.

    Attributes:
        answer: The selection, given the view.
        at: The stages.
    """

    answer: object
    at: object = (Stage(LAYER),)

    def stages(self) -> Any:
        return self.at

    def select(self, view: View, stage: int) -> Any:
        return self.answer(view)  # type: ignore[operator]


@dataclass(frozen=True)
class Drop:
    """Tokens that a reference hides.

    Attributes:
        tokens: Their indices.
        layer: From this layer on nobody sees them.
        later: In the layers before, tokens from this index on don't see them either.
    """

    tokens: Tensor
    layer: int = LAYER
    later: int | None = None


@contextlib.contextmanager
def hiding(model: Any, length: int, *drops: Drop) -> Iterator[None]:
    """A model that hides some tokens, in passes of `length` tokens without a cache."""
    removers = []
    for index, layer in enumerate(model.model.language_model.layers):
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        for drop in drops:
            if index >= drop.layer:
                seen[:, drop.tokens] = False
            elif drop.later is not None:
                seen[drop.later :, drop.tokens] = False
        seen |= torch.eye(length, dtype=torch.bool)

        def hide(_: Any, args: Any, kwargs: Inputs, seen: Tensor = seen) -> Any:
            return args, {**kwargs, "attention_mask": seen[None, None]}

        removers.append(layer.register_forward_pre_hook(hide, with_kwargs=True))
    try:
        yield
    finally:
        for remover in removers:
            remover.remove()


def gone(batch: Prompts, kept: Tensor, row: int = 0) -> Tensor:
    """The visual tokens of a row that were not kept."""
    visual = torch.cat(batch.tokens[row])
    return visual[~torch.isin(visual, kept)]


def without_mask(inputs: Inputs) -> Inputs:
    return {name: value for name, value in inputs.items() if name != "attention_mask"}


def run(model: Any, inputs: Inputs, **options: Any) -> Any:
    with torch.no_grad():
        return model(**inputs, **options)


def kept_by(model: Any, inputs: Inputs, pruner: Pruner, **options: Any) -> list[Tensor]:
    with pruned(model, pruner) as session:
        run(model, inputs, **options)
    return session.kept


def close(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, atol=2e-4, rtol=0)


def assert_hidden(model: Any, batch: Prompts, pruner: Pruner, **options: Any) -> None:
    """Every row of the pruned logits equals that of a pass that hides the dropped tokens."""
    inputs = single(batch, 0)
    with pruned(model, pruner) as session:
        found = run(model, inputs, **options).logits[0]
    length, remaining = inputs["input_ids"].shape[1], session.remaining[0]
    dropped = gone(batch, session.kept[0])
    assert len(remaining) == length - len(dropped) < length
    with hiding(model, length, Drop(dropped, pruner.stages()[0].layer)):
        expected = run(model, without_mask(inputs), use_cache=False).logits[0]
    close(found, expected[remaining])


def llava(*sample: Any) -> Prompts:
    return prompts(list(sample), family="llava15")


ONE = llava(5, SIDE, 17)
"""One prompt with one image."""
RAGGED = prompts([5, SIDE, 7], [13, SIDE, 12], family="llava15")


# --- padding and several turns


def has_axes(family: str) -> bool:
    """Whether the model numbers time, rows and columns."""
    return find_family(model_of(family)).position_axes(model_of(family)) > 1


def positions_of(model: Any, family: str, inputs: Inputs, mask: Tensor) -> Tensor:
    """Position ids of a whole dialogue, padding not counted."""
    if not has_axes(family):
        return (mask.cumsum(1) - 1).clamp_min(0)
    return model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"],
        image_grid_thw=inputs.get("image_grid_thw"), attention_mask=mask,
    )[0]  # fmt: skip


def dialogue(
    model: Any, turns: list[Prompts], method: Pruner, row: int | None = None
) -> tuple[Tensor, Any]:
    """Logits behind each turn (N, B, vocabulary) and the cache; turns enter one by one."""
    family = turns[0].family
    parts = [turn.inputs if row is None else single(turn, row) for turn in turns]
    joint = {
        name: torch.cat([part[name] for part in parts if name in part], 0 if "grid" in name else 1)
        for name in (
            "input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids", "image_grid_thw"
        )
        if any(name in part for part in parts)
    }  # fmt: skip
    mask = joint["attention_mask"]
    positions = positions_of(model, family, joint, mask)
    cache, start, logits = DynamicCache(config=model.config.text_config), 0, []
    with pruned(model, method):
        for part in parts:
            stop = start + part["input_ids"].shape[1]
            now = {
                **part, "attention_mask": mask[:, :stop],
                "position_ids": positions[..., start:stop],
            }  # fmt: skip
            if "token_type_ids" in part:  # Gemma 3 reads them by position
                now["token_type_ids"] = joint["token_type_ids"][:, :stop]
            logits.append(run(model, now, past_key_values=cache, use_cache=True).logits[:, -1])
            start = stop
    return torch.stack(logits), cache


@every_family
@pytest.mark.parametrize("name", ["uniform", "ivcp", "fastv"])
def test_padded_text_first_then_an_image(family: str, name: str) -> None:
    model, image = model_of(family), SMALL[family].images[0]
    turns = [
        prompts([4], [19], family=family),
        prompts([4, image, 6], [4, image, 6], family=family),
    ]
    together, _ = dialogue(model, turns, METHODS[name])
    for row in (0, 1):
        alone, _ = dialogue(model, turns, METHODS[name], row)
        close(together[:, row], alone[:, 0])


@pytest.mark.parametrize(
    ("family", "name"),
    [("llava15", name) for name in METHODS]
    + [(family, name) for family in SMALL for name in ("ivcp", "uniform, earlier KV whole")],
)  # fmt: skip
def test_a_second_image_behind_unequal_rows(family: str, name: str) -> None:
    model, image = model_of(family), SMALL[family].images[0]
    turns = [
        prompts([5, image, 7], [13, image, 12], family=family),
        prompts([4, image, 6], [4, image, 6], family=family),
        prompts([3], [8], family=family),
    ]
    if "linear" in layer_kinds(model.config):  # `test_linear_layers.py` has what is refused
        turns[2] = prompts([3], [3], family=family)
    together, _ = dialogue(model, turns, METHODS[name])
    for row in (0, 1):
        alone, _ = dialogue(model, turns, METHODS[name], row)
        close(together[:, row], alone[:, 0])


@pytest.mark.parametrize("name", ["uniform", "uniform, earlier KV whole", "ivcp", "fastv"])
@pytest.mark.parametrize("family", ["llava15", "deepseekvl", "internvl"])
@pytest.mark.parametrize("first", ["text", "image"])
def test_a_later_image_through_generate(family: str, name: str, first: str, greedy: Any) -> None:
    model, image = model_of(family), SMALL[family].images[1]
    samples = ([4], [19]) if first == "text" else ([5, image, 7], [13, image, 12])
    turns = [prompts(*samples, family=family), prompts(*[[4, image, 6]] * 2, family=family)]
    logits = []
    for row in (None, 0, 1):
        a, b = (turn.inputs if row is None else single(turn, row) for turn in turns)
        cache, count = DynamicCache(), len(a["input_ids"])
        with pruned(model, METHODS[name]):
            model.generate(**a, past_key_values=cache, max_new_tokens=1, **QUIET)
            # the same answer in all runs
            ids = torch.cat([a["input_ids"], torch.full((count, 1), 40), b["input_ids"]], 1)
            new = torch.ones(count, ids.shape[1] - a["input_ids"].shape[1], dtype=torch.long)
            mask = torch.cat([a["attention_mask"], new], 1)
            inputs = {**b, "input_ids": ids, "attention_mask": mask}
            out = greedy(model, inputs, 3, past_key_values=cache)
        logits.append(torch.stack(out.logits, 1))
    for row in (0, 1):
        close(logits[0][row], logits[1 + row][0])


@pytest.mark.parametrize("side", ["left", "right"])
@every_method
def test_padding_on_either_side(name: str, side: str) -> None:
    """A plain forward pass, as in training, gives each row what it has alone."""
    model, inputs = model_of("llava15"), dict(RAGGED.inputs)
    if side == "right":
        mask = inputs["attention_mask"]
        order = mask.sort(dim=1, descending=True, stable=True).indices
        for key in ("input_ids", "attention_mask"):
            inputs[key] = inputs[key].gather(1, order)
    mask = inputs["attention_mask"]
    inputs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)
    with pruned(model, METHODS[name]) as session:
        logits, kept, rows = run(model, inputs).logits, session.kept, session.remaining
        for row in (0, 1):
            alone = run(model, single(RAGGED, row)).logits[0]
            assert torch.equal(session.kept[0], kept[row])
            assert torch.equal(session.remaining[0], rows[row])
            # behind the cut, rows are padded on the left; where nothing was cut, as they came
            close(logits[row, -len(alone) :], alone)


@pytest.mark.parametrize("kind", [torch.bool, torch.float32, torch.int32])
def test_a_mask_of_another_type(kind: torch.dtype, greedy: Any) -> None:
    model, inputs = model_of("llava15"), RAGGED.inputs
    with pruned(model, METHODS["ivcp"]):
        usual = greedy(model, inputs)
        same = greedy(model, {**inputs, "attention_mask": inputs["attention_mask"].to(kind)})
    assert torch.equal(torch.cat(usual.logits), torch.cat(same.logits))


# --- a pruned cache outside of its block


def next_turn(model: Any, batch: Prompts, method: Pruner, inside: bool) -> Tensor:
    """Logits of a next turn of text, inside or outside of the block that pruned the cache."""
    inputs, text = batch.inputs, torch.full((len(batch.lengths), 4), 33)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(text)], 1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    width, cache = inputs["input_ids"].shape[1], DynamicCache()
    turn = {"input_ids": text, "attention_mask": mask, "position_ids": positions[:, width:]}
    with pruned(model, method):
        run(model, {**inputs, "position_ids": positions[:, :width]}, past_key_values=cache)
        if inside:
            return run(model, turn, past_key_values=cache).logits
    return run(model, turn, past_key_values=cache).logits


OUTSIDE = r"^This KV cache was pruned so that its layers or rows differ"


@pytest.mark.parametrize(
    ("name", "batch"),
    [("ivcp", RAGGED), ("uniform", RAGGED), ("visionzip", RAGGED), ("fastv", ONE),
     ("sparsevlm", ONE), ("pyramiddrop", ONE), ("ivcp, renumbered", ONE)],
)  # fmt: skip
def test_a_cache_that_needs_the_block(name: str, batch: Prompts) -> None:
    model = model_of("llava15")
    next_turn(model, batch, METHODS[name], inside=True)
    with pytest.raises(UserError, match=OUTSIDE):
        next_turn(model, batch, METHODS[name], inside=False)


@pytest.mark.parametrize("name", ["ivcp", "uniform", "visionzip"])
def test_a_cache_that_does_not(name: str) -> None:
    model = model_of("llava15")
    inside, outside = (next_turn(model, ONE, METHODS[name], inside=one) for one in (True, False))
    close(inside, outside)


def test_a_refused_cache_goes_on_inside() -> None:
    """After the sentence, nothing is lost: a block goes on with the same cache."""
    model, cache = model_of("llava15"), DynamicCache()
    with pruned(model, METHODS["fastv"]):
        run(model, ONE.inputs, past_key_values=cache)
    turn = {"input_ids": torch.full((1, 4), 33)}
    with pytest.raises(UserError, match=OUTSIDE):
        run(model, turn, past_key_values=cache)
    with pruned(model, NoPruning()):
        after = run(model, turn, past_key_values=cache).logits
    close(after, next_turn(model, ONE, METHODS["fastv"], inside=True))


@pytest.mark.parametrize("name", ["uniform", "uniform, earlier KV whole", "fastv"])
def test_crop(name: str) -> None:
    model, text = model_of("llava15"), torch.full((1, 4), 33)
    other = torch.full((1, 4), 34)
    with pruned(model, METHODS[name]):
        cache, fresh = DynamicCache(), DynamicCache()
        run(model, ONE.inputs, past_key_values=cache)
        run(model, {"input_ids": text}, past_key_values=cache)
        cache.crop(-4)
        run(model, ONE.inputs, past_key_values=fresh)
        found, expected = (
            run(model, {"input_ids": other}, past_key_values=one).logits for one in (cache, fresh)
        )
        close(found, expected)
        cache.crop(-(4 + 17))  # all text behind the image
        assert cache.get_seq_length() == 5 + COUNT
        with pytest.raises(UserError, match=r"^Only the last 0 tokens of this pruned cache"):
            cache.crop(-1)
        with pytest.raises(UserError, match=r"^crop of a pruned cache takes a negative number"):
            cache.crop(5)


@pytest.mark.parametrize("name", ["ivcp, renumbered", "fastv", "ivcp"])
def test_reset(name: str) -> None:
    model, cache, text = model_of("llava15"), DynamicCache(), torch.arange(3, 23)[None]
    found = []
    with pruned(model, METHODS[name]):
        run(model, RAGGED.inputs, past_key_values=cache)
        cache.reset()
        for one in (cache, DynamicCache()):
            run(
                model,
                {"input_ids": text, "position_ids": torch.arange(20)[None]},
                past_key_values=one,
            )
            more = {"input_ids": text[:, :3], "position_ids": torch.arange(100, 103)[None]}
            found.append(run(model, more, past_key_values=one).logits)
    close(*found)


def test_another_method_on_the_same_cache() -> None:
    """FastV leaves layers of unequal lengths; then an image under another method, then text."""
    model, cache = model_of("llava15"), DynamicCache()
    first, second, third = llava(5, SIDE, 7), llava(4, SIDE, 6), llava(9)
    with pruned(model, FastV(keep_ratio=0.5, layer=2)) as session:
        run(model, without_mask(first.inputs), past_key_values=cache)
        one = gone(first, session.kept[0])
    with pruned(model, UNIFORM) as session:
        image = run(model, without_mask(second.inputs), past_key_values=cache).logits[0]
        two, start = gone(second, session.kept[0]), first.lengths[0]
        remaining = session.remaining[0] + start
        text = run(model, without_mask(third.inputs), past_key_values=cache).logits[0]
    turns = (first, second, third)
    ids = torch.cat([turn.inputs["input_ids"] for turn in turns], 1)
    pixels = torch.cat([turn.inputs["pixel_values"] for turn in turns[:2]])
    later = start + second.lengths[0]
    drops = Drop(one, 2), Drop(two + start, LAYER, later)
    with hiding(model, ids.shape[1], *drops):
        expected = run(model, {"input_ids": ids, "pixel_values": pixels}, use_cache=False).logits[0]
    close(image, expected[remaining])
    close(text, expected[later:])


# --- ways to generate


WAYS: dict[str, tuple[Any, str]] = {
    "prompt_lookup_num_tokens": (3, r"^prompt_lookup_num_tokens cannot .* guessed tokens"),
    "prefill_chunk_size": (16, r"^prefill_chunk_size cannot .* a part of the prompt"),
    "assistant_early_exit": (2, r"^assistant_early_exit cannot .* guessed tokens"),
    "use_cache": (False, r"^use_cache=False cannot .* select anew"),
}


@pytest.mark.parametrize("setting", WAYS)
@pytest.mark.parametrize("where", ["call", "config", "model's config"])
def test_refused_ways_to_generate(setting: str, where: str) -> None:
    value, sentence = WAYS[setting]
    model = SMALL["llava15"].model()
    options: Inputs = {setting: value}
    if where == "config":
        options = {"generation_config": GenerationConfig(**options)}
    elif where == "model's config":
        setattr(model.generation_config, setting, value)
        options = {}
    with pruned(model, UNIFORM), pytest.raises(UserError, match=sentence):
        model.generate(**ONE.inputs, max_new_tokens=2, **options)


def test_an_assistant_is_refused() -> None:
    model = model_of("llava15")
    with pruned(model, UNIFORM), pytest.raises(UserError, match=r"^assistant_model cannot be used"):
        model.generate(**ONE.inputs, assistant_model=model_of("llava15", "eager"))


def test_a_call_overrides_the_configs(greedy: Any) -> None:
    """What the call sets counts: a config's refused setting is switched off by it."""
    model = SMALL["llava15"].model()
    model.generation_config.use_cache = False
    with pruned(model, UNIFORM):
        greedy(model, ONE.inputs, use_cache=True)


def test_generate_that_was_taken_before_the_block() -> None:
    """A bound method from before the block passes by the check, but not by the forward pass."""
    model = SMALL["llava15"].model()
    generate = model.generate
    with pruned(model, UNIFORM), pytest.raises(UserError):
        generate(**ONE.inputs, max_new_tokens=4, use_cache=False, **QUIET)


CACHES: dict[str, Callable[[Any], Any]] = {
    "static": lambda config: StaticCache(config=config, max_cache_len=200),
    "replicating": lambda _: Cache(layer_class_to_replicate=StaticLayer),
    "tuple": lambda _: tuple((torch.zeros(1, 2, 0, 16),) * 2 for _ in range(6)),
    "offloading": lambda config: _offloading(config),
}


def _offloading(config: Any) -> Any:
    cache = DynamicCache(config=config)
    cache.offloading = True  # what DynamicCache(offloading=True) is on a GPU
    return cache


@pytest.mark.parametrize("kind", CACHES)
def test_caches_that_cannot_be_pruned(kind: str) -> None:
    model = model_of("llava15")
    cache = CACHES[kind](model.config.text_config)
    with (
        pruned(model, UNIFORM),
        pytest.raises(UserError, match=r"^Pruning needs a dynamic KV cache"),
    ):
        run(model, ONE.inputs, past_key_values=cache)


@pytest.mark.parametrize("kind", ["offloaded_static", "quantized", "offloaded"])
def test_cache_implementations_that_cannot_be_pruned(kind: str) -> None:
    model = model_of("llava15")
    if kind == "quantized":
        pytest.importorskip("optimum.quanto")
    if "offloaded" in kind and not torch.cuda.is_available():
        pytest.skip("the library offloads from GPUs alone")
    options = {"cache_config": {"backend": "quanto"}} if kind == "quantized" else {}
    with (
        pruned(model, UNIFORM),
        pytest.raises(UserError, match=r"^Pruning needs a dynamic KV cache"),
    ):
        model.generate(**ONE.inputs, max_new_tokens=2, cache_implementation=kind, **options)


def test_a_quantised_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever package quantises it."""
    layer = type("QuantoQuantizedLayer", (nn.Module,), {"is_initialized": False})
    cache = QuantizedCache.__new__(QuantizedCache)
    Cache.__init__(cache, layers=[layer() for _ in range(6)])
    model = model_of("llava15")
    with pruned(model, UNIFORM), pytest.raises(UserError, match="QuantoQuantizedLayer"):
        run(model, ONE.inputs, past_key_values=cache)


@pytest.mark.parametrize(
    "options",
    [{"use_cache": False}, {"cache_implementation": "static"}, {"prompt_lookup_num_tokens": 3}],
    ids=str,
)
def test_nothing_is_refused_where_nothing_is_pruned(options: Inputs) -> None:
    """`NoPruning` is the baseline: it does what the model does."""
    model = SMALL["llava15"].model()  # generate leaves static caches on a model
    plain = model.generate(**ONE.inputs, max_new_tokens=4, **QUIET, **options)
    with pruned(model, NoPruning()):
        same = model.generate(**ONE.inputs, max_new_tokens=4, **QUIET, **options)
        inputs = {**ONE.inputs, "attention_mask": causal_4d(ONE.inputs["attention_mask"])}
        run(model, inputs)
    assert torch.equal(same, plain)


FAMILIES_OF_BEAMS = [(family, "ivcp") for family in SMALL] + [("llava15", name) for name in METHODS]


@pytest.mark.parametrize(("family", "name"), FAMILIES_OF_BEAMS)
def test_beams_over_unequal_rows(family: str, name: str) -> None:
    model, image = model_of(family), SMALL[family].images[1]
    batch = prompts([5, image, 7], [13, image, 12], [9], family=family)
    options = {"max_new_tokens": 4, "num_beams": 3, **QUIET}
    with pruned(model, METHODS[name]):
        together = model.generate(**batch.inputs, **options)
        for row, length in enumerate(batch.lengths):
            alone = model.generate(**single(batch, row), **options)
            assert torch.equal(alone[0], together[row, -length - 4 :][-len(alone[0]) :])


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("ivcp", 1), ("uniform, earlier KV whole", 2), ("fastv", 2), ("sparsevlm", 4)],
)
@pytest.mark.parametrize("beams", [1, 3])
def test_masks_are_made_once_a_step(
    name: str, kinds: int, beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each kind of cache (whole, and behind each stage), not once a layer."""
    calls: list[int] = []
    steps: list[int] = []

    def counted(*args: Any) -> Any:
        calls.append(len(steps))
        return make(*args)

    make = layer_inputs.attention_mask
    monkeypatch.setattr(layer_inputs, "attention_mask", counted)
    model = SMALL["llava15"].model()
    model.model.language_model.register_forward_pre_hook(lambda *_: steps.append(1))
    with pruned(model, METHODS[name]):
        model.generate(**RAGGED.inputs, max_new_tokens=5, num_beams=beams, **QUIET)
    assert len(steps) == 5
    for step in range(2, 6):
        assert 0 < calls.count(step) <= kinds


def test_guidance_keeps_the_sessions_results(greedy: Any) -> None:
    """Classifier-free guidance runs text alone beside the prompt."""
    model, inputs = model_of("llava15"), ONE.inputs
    negative = torch.arange(3, 9)[None]
    with pruned(model, UNIFORM) as session:
        usual = greedy(model, inputs, 1)
        kept = session.kept[0]
        guided = model.generate(
            **inputs, max_new_tokens=1, do_sample=False, guidance_scale=2.0, output_scores=True,
            negative_prompt_ids=negative, return_dict_in_generate=True, eos_token_id=None,
        )  # fmt: skip
    without = run(model, {"input_ids": negative}).logits[:, -1].log_softmax(-1)
    with_image = usual.logits[0].log_softmax(-1)
    close(guided.scores[0], 2 * (with_image - without) + without)
    assert len(kept) == COUNT // 2


# --- masks and attention


def causal_4d(mask: Tensor) -> Tensor:
    width = mask.shape[1]
    seen = torch.ones(width, width, dtype=torch.bool).tril() & mask.bool()[:, None]
    return (seen | torch.eye(width, dtype=torch.bool))[:, None]


@every_family
@pytest.mark.parametrize("layer", [0, LAYER])
def test_masks_of_four_axes(family: str, layer: int) -> None:
    model = model_of(family)
    batch = prompts([5, SMALL[family].images[0], 7], family=family)
    inputs = {**batch.inputs, "attention_mask": causal_4d(batch.inputs["attention_mask"])}
    if has_axes(family):  # their numbering takes padding masks alone
        mask = batch.inputs["attention_mask"]
        inputs["position_ids"] = positions_of(model, family, batch.inputs, mask)
    method = UniformGrid(keep_ratio=0.5, layer=layer)
    sentence = r"^Pruning supports padding masks .* only; got an attention mask \("
    with pruned(model, method), pytest.raises(UserError, match=sentence):
        run(model, inputs)


def test_masks_by_kind_of_layer() -> None:
    mask = {"full_attention": causal_4d(ONE.inputs["attention_mask"])}
    model = model_of("llava15")
    with pruned(model, UNIFORM), pytest.raises(UserError, match="for each kind of layer"):
        run(model, {**ONE.inputs, "attention_mask": mask})


def test_a_mask_of_four_axes_over_text() -> None:
    model, batch = model_of("llava15"), llava(14)
    inputs = {**batch.inputs, "attention_mask": causal_4d(batch.inputs["attention_mask"])}
    inputs["attention_mask"][..., -3:, 4] = False
    plain = run(model, inputs).logits
    with pruned(model, UNIFORM):
        assert torch.equal(run(model, inputs).logits, plain)


@pytest.mark.parametrize("width", [1, 4])
def test_a_mask_of_four_axes_behind_a_cut(width: int) -> None:
    """It would have to name the tokens that a pruned cache still holds."""
    model, cache = model_of("llava15"), DynamicCache()
    total = ONE.lengths[0] + width
    mask = torch.ones(total, total, dtype=torch.bool).tril()[None, None, -width:]
    mask[..., :3] = False
    turn = {"input_ids": torch.full((1, width), 33), "attention_mask": mask}
    with pruned(model, UNIFORM):
        run(model, ONE.inputs, past_key_values=cache)
        with pytest.raises(UserError, match=r"padding masks"):
            run(model, turn, past_key_values=cache)


@pytest.mark.parametrize("name", ["uniform", "ivcp", "fastv"])
@pytest.mark.parametrize(("before", "after"), [("sdpa", "eager"), ("eager", "sdpa")])
def test_attention_switched_inside(name: str, before: str, after: str, greedy: Any) -> None:
    model, other = SMALL["llava15"].model(before), model_of("llava15", after)
    with pruned(model, METHODS[name]):
        model.set_attn_implementation(after)
        found = greedy(model, RAGGED.inputs)
    with pruned(other, METHODS[name]):
        expected = greedy(other, RAGGED.inputs)
    close(torch.cat(found.logits), torch.cat(expected.logits))


def test_attention_switched_to_what_is_unknown() -> None:
    model = SMALL["llava15"].model()
    sentence = r"^Pruning supports the attention backends"
    with pruned(model, UNIFORM), pytest.raises(UserError, match=sentence):
        model.model.language_model.config._attn_implementation = "flex_attention"
        run(model, ONE.inputs)


def test_attention_weights_and_hidden_states_are_those_of_the_tokens_left() -> None:
    model = model_of("llava15", "eager")
    with pruned(model, UNIFORM) as session:
        out = run(model, ONE.inputs, output_attentions=True, output_hidden_states=True)
    length, left = ONE.lengths[0], len(session.remaining[0])
    sizes = [length] * LAYER + [left] * (6 - LAYER)
    assert [weights.shape[-2:] for weights in out.attentions] == [(n, n) for n in sizes]
    assert out.hidden_states[-1].shape[1] == left
    for weights in out.attentions:
        close(weights.sum(-1), torch.ones(weights.shape[:-1]))


# --- other language models


def llava_on(backend: str = "sdpa", **text: Any) -> Any:
    return random_model(SMALL["llava15"].config(backend, text=text))


MISTRAL = {"model_type": "mistral", "sliding_window": None}
LANGUAGE_MODELS: dict[str, Inputs] = {
    "llama": {"model_type": "llama"},
    "mistral": MISTRAL,
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "phi": {"model_type": "phi", "qk_layernorm": False},
    "phi, normed": {"model_type": "phi", "qk_layernorm": True},
    "stablelm": {"model_type": "stablelm"},
    "stablelm, normed": {"model_type": "stablelm", "qk_layernorm": True},
    "stablelm, parallel": {"model_type": "stablelm", "use_parallel_residual": True},
    "olmo2": {"model_type": "olmo2"},
}
every_language_model = pytest.mark.parametrize("kind", LANGUAGE_MODELS)


@every_language_model
@pytest.mark.parametrize("source", ["previous", "next"])
def test_attention_of_a_view_is_the_models_own(kind: str, source: Any) -> None:
    seen: list[Tensor] = []

    def answer(view: View) -> Selection:
        queries = view.sample.layout.text_queries(view.image)
        seen.append(view.attention(torch.arange(len(queries))))
        return Selection(torch.arange(0, COUNT, 2))

    needs = frozenset({"attention"})
    method = Given(answer=answer, at=(Stage(LAYER, needs, signals_from=source),))
    model = llava_on("eager", **LANGUAGE_MODELS[kind])
    weights = run(model, ONE.inputs, output_attentions=True).attentions
    with pruned(model, method) as session:
        run(model, ONE.inputs)
    layout = session.layouts[0]
    rows = layout.text_queries(layout.images[0])
    own = weights[LAYER - (source == "previous")][0].mean(0)
    close(seen[-1], own[rows][:, layout.images[0].tokens])


@every_language_model
@one_stage
def test_other_language_models(kind: str, name: str) -> None:
    assert_hidden(llava_on(**LANGUAGE_MODELS[kind]), ONE, METHODS[name])


UNKNOWN = ["gpt_neox", "gemma"]


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize("name", ["fastv", "ivcp", "sparsevlm", "pyramiddrop"])
def test_unknown_language_models_show_no_layers(kind: str, name: str) -> None:
    model = llava_on(model_type=kind, head_dim=16)
    sentence = (
        r"needs the signal (attention|values).*, but LlavaForConditionalGeneration provides only"
    )
    with pytest.raises(UserError, match=sentence):
        attach(model, METHODS[name])


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_language_models_without_layer_signals(kind: str) -> None:
    assert_hidden(llava_on(model_type=kind, head_dim=16), ONE, UNIFORM)


WINDOW = r"^Pruning does not support models with sliding-window layers"


@pytest.mark.parametrize(
    "text",
    [
        {"model_type": "mistral", "sliding_window": 16},
        {"model_type": "mistral", "sliding_window": 4096},
        {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 16,
         "max_window_layers": 2},
        {"model_type": "qwen3", "layer_types": ["full_attention"] * 5 + ["sliding_attention"],
         "use_sliding_window": True, "sliding_window": 16},
    ],
    ids=["mistral", "mistral, wide", "qwen2", "qwen3"],
)  # fmt: skip
def test_sliding_windows(text: Inputs) -> None:
    with pytest.raises(UserError, match=WINDOW):
        attach(llava_on(**text), UNIFORM)


# --- what IVC tokens depend on


@every_family
def test_ivc_tokens_do_not_depend_on_the_rows_beside(family: str) -> None:
    """In plain passes without position ids too, where most libraries count padding."""
    model, image = model_of(family), SMALL[family].images[0]
    batch = prompts([5, image, 7], [31, image, 40], family=family)
    together = kept_by(model, batch.inputs, IVCOnly(keep_ratio=0.3, layer=LAYER))
    for row in (0, 1):
        alone = kept_by(model, single(batch, row), IVCOnly(keep_ratio=0.3, layer=LAYER))
        assert torch.equal(alone[0], together[row])


@every_family
def test_ivc_tokens_do_not_depend_on_the_dtype(family: str) -> None:
    model, image = SMALL[family].model(), SMALL[family].images[3]
    # far into a prompt, rounded frequencies turn by other angles
    inputs = prompts([900, image, 7], family=family).inputs
    exact = kept_by(model, inputs, IVCOnly(keep_ratio=0.3, layer=LAYER))
    model.bfloat16()
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    half = kept_by(model, inputs, IVCOnly(keep_ratio=0.3, layer=LAYER))
    assert torch.equal(exact[0], half[0])


# --- features that the caller encodes


def encoded(model: Any, inputs: Inputs) -> Inputs:
    """The inputs with features in place of pixels."""
    if "mm_encoder_outputs" not in inspect.signature(type(model.model).forward).parameters:
        pytest.skip("models of this transformers take no features")
    text = ("input_ids", "attention_mask", "mm_token_type_ids")
    images = {name: value for name, value in inputs.items() if name not in text}
    with torch.no_grad():
        features = model.model.get_image_features(**images, return_dict=True)
    rest = {name: value for name, value in inputs.items() if name != "pixel_values"}
    return {**rest, "mm_encoder_outputs": {"image": features}}


@every_family
@pytest.mark.parametrize("name", ["ivcp", "visionzip"])
def test_features_encoded_inside(family: str, name: str) -> None:
    model = model_of(family)
    batch = prompts([5, SMALL[family].images[0], 9], family=family)
    with pruned(model, METHODS[name]) as session:
        usual, kept = run(model, batch.inputs).logits, session.kept[0]
        found = run(model, encoded(model, batch.inputs)).logits
        assert torch.equal(session.kept[0], kept)
    close(found, usual)


@pytest.mark.parametrize("family", ["llava15", "qwen25vl", "internvl"])
def test_features_encoded_inside_for_another_purpose(family: str) -> None:
    """Such as a tuple of them, which no pass takes."""
    model = model_of(family)
    inputs = prompts([5, SMALL[family].images[0], 9], family=family).inputs
    named = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
    with pruned(model, METHODS["ivcp"]):
        expected = run(model, inputs).logits
        with torch.no_grad():
            assert len(model.model.get_image_features(**named, return_dict=False))
        assert torch.equal(run(model, inputs).logits, expected)


@every_family
def test_features_encoded_outside(family: str) -> None:
    model = model_of(family)
    batch = prompts([5, SMALL[family].images[0], 9], family=family)
    inputs = encoded(model, batch.inputs)
    if EXPECTED[family].layout_in_pixels:
        sentence = (
            r"^How .* of an image .* in (its|their) pixels alone: pass pixel_values, or encode"
        )
        with pruned(model, METHODS["ivcp"]), pytest.raises(UserError, match=sentence):
            run(model, inputs)
        return
    with pruned(model, METHODS["ivcp"]) as session:
        usual, kept = run(model, batch.inputs).logits, session.kept[0]
        found = run(model, inputs).logits
        assert torch.equal(session.kept[0], kept)
    close(found, usual)


@every_family
def test_the_tower_cannot_be_looked_at_outside(family: str) -> None:
    model, image = model_of(family), SMALL[family].images[1]
    inputs = encoded(model, prompts([5, image, 9], family=family).inputs)
    sentence = (
        r"^VisionZip looks at the vision tower, but the images were encoded outside"
        r"|shows in its pixels alone: pass pixel_values, or encode them inside"  # DeepSeek-VL2
    )
    with pruned(model, METHODS["visionzip"]), pytest.raises(UserError, match=sentence):
        run(model, inputs)


# --- logits, labels, gradients


@pytest.mark.parametrize("name", ["uniform", "visionzip"])
def test_logits_to_keep(name: str) -> None:
    model = model_of("llava15")
    with pruned(model, METHODS[name]):
        whole = run(model, ONE.inputs).logits
        for count in (1, 5, 17):
            close(run(model, ONE.inputs, logits_to_keep=count).logits, whole[:, -count:])
        for bad in (18, torch.tensor([48]), torch.tensor([-1])):
            with pytest.raises(UserError, match=r"^logits_to_keep counts the tokens of the whole"):
                run(model, ONE.inputs, logits_to_keep=bad)
        text = llava(14).inputs
        assert run(model, text, logits_to_keep=torch.tensor([2, 3])).logits.shape[1] == 2
    with pruned(model, NoPruning()):  # where nothing is dropped, all counts
        assert run(model, ONE.inputs, logits_to_keep=40).logits.shape[1] == 40


@every_method
def test_remaining_names_the_rows_of_the_output(name: str) -> None:
    model = model_of("llava15")
    with pruned(model, METHODS[name]) as session:
        out = run(model, RAGGED.inputs)
    assert out.logits.shape[1] == max(map(len, session.remaining))
    for row, (left, kept) in enumerate(zip(session.remaining, session.kept, strict=True)):
        text = torch.arange(RAGGED.lengths[row])
        text = text[~torch.isin(text, RAGGED.tokens[row][0])]
        assert torch.equal(left.sort().values, torch.cat([text, kept]).sort().values)


def labelled(batch: Prompts) -> tuple[Tensor, list[Tensor]]:
    """Labels as a collator makes them, and each row's own; nothing predicts its first token."""
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    labels = ids.masked_fill((ids == IMAGE) | (mask == 0) | (mask.cumsum(1) == 1), -100)
    return labels, [labels[row, -length:] for row, length in enumerate(batch.lengths)]


@every_family
@pytest.mark.parametrize("name", ["ivcp", "uniform, earlier KV whole", "visionzip"])
def test_labels(family: str, name: str) -> None:
    model, image = model_of(family), SMALL[family].images[1]
    batch = prompts([5, image, 7], [13, image, 12], family=family)
    labels, own = labelled(batch)
    with pruned(model, METHODS[name]) as session:
        out = run(model, batch.inputs, labels=labels)
        assert torch.equal(out.logits, run(model, batch.inputs).logits)
        loss, logits, *_ = run(model, batch.inputs, labels=labels, return_dict=False)
    found, wanted = [], []
    for row, left in enumerate(session.remaining):
        found.append(out.logits[row, -len(left) :][:-1])
        wanted.append(own[row][left][1:])
    expected = F.cross_entropy(torch.cat(found), torch.cat(wanted))
    close(out.loss, expected)
    assert torch.equal(loss, out.loss)
    assert torch.equal(logits, out.logits)


def test_labels_of_a_row_that_becomes_the_shorter_one() -> None:
    """Padding that pruning put in front of it predicts nothing."""
    model, batch = model_of("llava15"), prompts([2, SIDE, SIDE, 3], [50], family="llava15")
    labels, own = labelled(batch)
    labels[0, 0] = own[0][0] = batch.inputs["input_ids"][0, 0]
    with pruned(model, UNIFORM) as session:
        out = run(model, batch.inputs, labels=labels)
    found, wanted = [], []
    for row, left in enumerate(session.remaining):
        found.append(out.logits[row, -len(left) :][:-1])
        wanted.append(own[row][left][1:])
    close(out.loss, F.cross_entropy(torch.cat(found), torch.cat(wanted)))


@every_family
@pytest.mark.parametrize("rows", [1, 2])
def test_labels_without_pruning(family: str, rows: int) -> None:
    model, image = model_of(family), SMALL[family].images[1]
    batch = prompts(*[[5, image, 7], [13, image, 12]][:rows], family=family)
    labels, _ = labelled(batch)
    mean = run(model, batch.inputs, labels=labels).loss
    for count in ({}, {"num_items_in_batch": 29}):
        plain = run(model, batch.inputs, labels=labels, **count).loss
        if count and torch.equal(plain, mean):
            pytest.skip("the loss of this model ignores num_items_in_batch, that of a session not")
        for method in (NoPruning(), UniformGrid(keep_ratio=1.0, layer=LAYER)):
            with pruned(model, method):
                assert torch.equal(run(model, batch.inputs, labels=labels, **count).loss, plain)


def test_labels_of_text_alone() -> None:
    model, inputs = model_of("llava15"), llava(14).inputs
    plain = run(model, inputs, labels=inputs["input_ids"]).loss
    with pruned(model, UNIFORM):
        run(model, ONE.inputs)
        assert torch.equal(run(model, inputs, labels=inputs["input_ids"]).loss, plain)


def test_the_loss_flows_back_to_what_is_left() -> None:
    model = SMALL["llava15"].model()
    labels, _ = labelled(ONE)
    with pruned(model, METHODS["ivcp"]) as session:
        model(**ONE.inputs, labels=labels).loss.backward()
    found = {
        name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None
    }
    model.zero_grad()
    left = session.remaining[0]
    with hiding(model, ONE.lengths[0], Drop(gone(ONE, session.kept[0]))):
        logits = model(**without_mask(ONE.inputs), use_cache=False).logits[0, left]
        F.cross_entropy(logits[:-1], labels[0, left][1:]).backward()
    for name, one in model.named_parameters():
        if one.grad is not None and one.grad.abs().max() > 0:
            torch.testing.assert_close(found[name], one.grad, atol=1e-4, rtol=1e-3)


def checkpoint_activations(model: Any, options: dict[str, Any] | None = None) -> None:
    """By the name of newer or older versions of the library."""
    name = "activation_checkpointing_enable"
    (getattr(model, name, None) or model.gradient_checkpointing_enable)(options)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(name: str, reentrant: bool) -> None:
    labels, _ = labelled(RAGGED)
    results = []
    for checkpointed in (False, True):
        model = SMALL["llava15"].model().train()
        if checkpointed:
            checkpoint_activations(model, {"use_reentrant": reentrant})
            model.enable_input_require_grads()
        with pruned(model, METHODS[name]) as session:
            out = model(**RAGGED.inputs, labels=labels, use_cache=False)
            books = session.layer_tokens, session.kept, session.remaining
            out.loss.backward()
            assert session.layer_tokens == books[0]
        grads = {path: one.grad for path, one in model.named_parameters() if one.grad is not None}
        results.append((out.loss.detach(), grads, books))
    (loss, grads, books), (same, others, also) = results
    close(same, loss)
    assert books[0] == also[0]
    assert all(torch.equal(a, b) for a, b in zip(books[1], also[1], strict=True))
    for path, grad in grads.items():
        torch.testing.assert_close(others[path], grad, atol=1e-5, rtol=1e-3)


def test_a_gradient_through_a_pruned_prompt_after_the_block() -> None:
    """Backward may come once the block is over."""
    model = SMALL["llava15"].model().train()
    checkpoint_activations(model)
    labels, _ = labelled(ONE)
    with pruned(model, UNIFORM):
        inside = model(**ONE.inputs, labels=labels, use_cache=False).loss
        inside.backward()
    wanted = model.lm_head.weight.grad.clone(), _first(model).grad.clone()
    model.zero_grad()
    with pruned(model, UNIFORM):
        loss = model(**ONE.inputs, labels=labels, use_cache=False).loss
    loss.backward()
    close(model.lm_head.weight.grad, wanted[0])
    close(_first(model).grad, wanted[1])


def _first(model: Any) -> Tensor:
    return model.model.language_model.layers[0].self_attn.q_proj.weight


# --- what a pruner answers and touches


def index(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)


def states(count: int, **options: Any) -> Tensor:
    return torch.zeros(count, 64, **options)


UNUSABLE = "^Given made a selection that cannot be used: "
BAD: dict[str, tuple[Any, str]] = {
    "descending": (Selection(index(3, 1)), "keep must be ascending"),
    "repeated": (Selection(index(0, 3, 3, 7)), "keep must be ascending"),
    "negative": (Selection(index(-1, 2)), r"indices must lie in 0 \.\. 35"),
    "one negative": (Selection(index(-1)), r"indices must lie in 0 \.\. 35"),
    "outside": (Selection(index(2, 36)), r"indices must lie in 0 \.\. 35"),
    "too many": (Selection(torch.arange(37)), "keep has 37 indices for 36 tokens"),
    "nothing": (Selection(index()), "it leaves no token of the image"),
    "truth values": (Selection(torch.ones(36) > 0), "keep must be a one-dimensional int64 tensor"),
    "int32": (Selection(index(1).int()), "keep must be a one-dimensional int64 tensor"),
    "floats": (Selection(index(1).float()), "keep must be a one-dimensional int64 tensor"),
    "two axes": (Selection(index(1)[None]), "keep must be a one-dimensional int64 tensor"),
    "keep is a list": (Selection([0, 1]), "keep must be .* got a list"),
    "a list": ([0, 1], "select must give a Selection; got a list"),
    "a tensor": (index(1), "select must give a Selection; got a tensor of shape"),
    "none": (None, "select must give a Selection; got a NoneType"),
    "reason without truth values": (
        Selection(index(1), {"why": index(1)}), "reasons must map words to truth values"
    ),
    "reason that is no word": (
        Selection(index(1), {3: index(1) > 0}), "reasons must map words to truth values"
    ),
    "reason of another length": (
        Selection(index(1), {"why": index(1, 2) > 0}), r"reason 'why' must have the shape \(1,\)"
    ),
    "states of another count": (
        Selection(index(1), states=states(2)), r"states must have the shape \(1, 64\)"
    ),
    "states of another size": (
        Selection(index(1), states=torch.zeros(1, 32)), r"states must have the shape \(1, 64\)"
    ),
    "whole states": (
        Selection(index(1), states=states(1, dtype=torch.long)),
        "states must be a tensor of numbers",
    ),
    "merged places without states": (
        Selection(index(1), merged_at=index(2)), "merged_at and merged_states must come together"
    ),
    "merged states without places": (
        Selection(index(1), merged_states=states(1)), "merged_at and merged_states must come"
    ),
    "one state for two places": (
        Selection(index(0), merged_at=index(3, 5), merged_states=states(1)),
        r"merged_states must have the shape \(2, 64\)",
    ),
    "merged over kept": (
        Selection(index(0, 3), merged_at=index(3), merged_states=states(1)),
        "merged_at must hold each index once, and none that is kept",
    ),
    "merged twice": (
        Selection(index(0), merged_at=index(3, 3), merged_states=states(2)),
        "merged_at must hold each index once, and none that is kept",
    ),
    "merged outside": (
        Selection(index(0), merged_at=index(36), merged_states=states(1)),
        r"indices must lie in 0 \.\. 35",
    ),
    "merged in front of more than all": (
        Selection(index(0), merged_at=index(3), merged_states=states(1), merged_before=2),
        r"merged_before must lie in 0 \.\. 1; got 2",
    ),
    "merged in front of less than none": (
        Selection(index(0), merged_at=index(3), merged_states=states(1), merged_before=-1),
        r"merged_before must lie in 0 \.\. 1; got -1",
    ),
    "more than there were": (
        Selection(torch.arange(20), merged_at=torch.arange(20), merged_states=states(20)),
        "it leaves 40 tokens of 36",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("layer", [0, LAYER])
def test_bad_selections(kind: str, layer: int) -> None:
    found, sentence = BAD[kind]
    method = Given(answer=lambda _: found, at=(Stage(layer),))
    model = model_of("llava15")
    with pruned(model, method), pytest.raises(UserError, match=UNUSABLE + ".*" + sentence):
        run(model, ONE.inputs)


@pytest.mark.parametrize("given", [None, Selection(index(1)), [Selection(index(1))], []])
def test_selections_for_another_number_of_images(given: Any) -> None:
    class Mine(Given):
        def select_sample(self, views: Any, stage: int) -> Any:
            return given

    model, sentence = model_of("llava15"), r"^Mine\.select_sample must give a list of 2 selections"
    with pruned(model, Mine(answer=None)), pytest.raises(UserError, match=sentence):
        run(model, llava(5, SIDE, 4, SIDE, 3).inputs)


STAGES: dict[str, tuple[Any, str]] = {
    "two at one layer": ((Stage(3), Stage(3)), r"has stages at the layers \[3, 3\]; they must asc"),
    "descending": ((Stage(4), Stage(2)), r"has stages at the layers \[4, 2\]; they must ascend"),
    "numbers": ((3,), r"^Given\.stages\(\) must give Stage objects; got 3"),
    "a word": ("layer", r"^Given\.stages\(\) must give .*Stage objects; got 'l"),
    "one stage": (Stage(3), r"^Given\.stages\(\) must give"),
    "a class": ((Stage,), r"^Given\.stages\(\) must give Stage objects; got <class"),
    "nothing": (None, r"^Given\.stages\(\) must give"),
    "beyond": ((Stage(6),), r"layer must lie in 0 \.\. 5"),
    "negative": ((Stage(-1),), r"layer must lie in 0 \.\. 5"),
    "no layer before": (
        (Stage(0, frozenset({"values"})),),
        r"layer must lie in 1 \.\. 5 .* looks at the layer before",
    ),
    "an unknown signal": ((Stage(3, frozenset({"depth"})),), "needs the signal depth, but"),
}


@pytest.mark.parametrize("kind", STAGES)
def test_bad_stages(kind: str) -> None:
    given, sentence = STAGES[kind]
    with pytest.raises(UserError, match=sentence):
        attach(model_of("llava15"), Given(answer=None, at=given))


STAGE_FIELDS: dict[str, tuple[Inputs, str]] = {
    "needs is a word": ({"needs": "values"}, "needs must be"),
    "needs is a list of numbers": ({"needs": [1]}, "needs must be"),
    "layer is a word": ({"layer": "3"}, "layer must be a whole number; got '3'"),
    "layer is true": ({"layer": True}, "layer must be a whole number; got True"),
    "signals": ({"signals_from": "last"}, "signals_from must be previous or next; got 'last'"),
    "switch": ({"prune_earlier_kv": None}, "prune_earlier_kv must be true or false; got None"),
    "a first pass within": ({"first_pass": 2}, "first_pass must be a number of decoder layers"),
    "a first pass of -1": ({"layer": 0, "first_pass": -1}, "first_pass must be a number"),
    "a first pass and the next layer": (
        {"layer": 0, "first_pass": 2, "signals_from": "next"},
        'first_pass must be .* signals from the "previous" layer, or 0; got Stage',
    ),
    "tower layer": ({"tower_layers": -2}, "tower_layers must be a list, each item a whole number"),
}


@pytest.mark.parametrize("kind", STAGE_FIELDS)
def test_bad_fields_of_a_stage(kind: str) -> None:
    fields, sentence = STAGE_FIELDS[kind]
    with pytest.raises(UserError, match=f"^{sentence}"):
        Stage(**{"layer": 3, **fields})


def test_numbers_of_a_stage() -> None:
    assert Stage(np.int64(3), tower_layers=[-2]) == Stage(3)


@pytest.mark.parametrize(
    "given", [FastV, "fastv", [FastV()], None, {"keep_ratio": 0.5}, lambda view: view]
)
def test_what_is_no_pruner(given: Any) -> None:
    sentence = r"^pruner must be an instance of a Pruner, such as FastV\(keep_ratio=0\.5\); got"
    with pytest.raises(UserError, match=sentence):
        attach(model_of("llava15"), given)


READS: dict[str, Callable[[View], Any]] = {
    "positions": lambda view: view.positions(),
    "values": lambda view: view.values(),
    "keys": lambda view: view.keys(),
    "attention": lambda view: view.last_attention(),
    "embeddings": lambda view: view.embeddings(),
    "text_embeddings": lambda view: view.text_embeddings(),
    "hidden": lambda view: view.hidden(),
    "tower_attention": lambda view: view.tower_attention(),
    "tower_keys": lambda view: view.tower_keys(),
    "tower_features": lambda view: view.tower_features(),
    "question": lambda view: view.question(),
    "text_encoder": lambda view: view.text_relevance(),
}
OTHER_READS: dict[str, tuple[str, Callable[[View], Any]]] = {
    "inverse_frequencies": ("positions", lambda view: view.inverse_frequencies()),
    "text_hidden": ("hidden", lambda view: view.text_hidden()),
    "final_norm": ("hidden", lambda view: view.final_norm(torch.zeros(1, 64))),
    "other_values": ("values", lambda view: view.other_values()),
    "attention rows": ("attention", lambda view: view.attention(index(0))),
    "mean attention": ("attention", lambda view: view.mean_attention(torch.ones(15))),
    "tower_cls": ("tower_features", lambda view: view.tower_cls()),
    "project": ("tower_features", lambda view: view.project(torch.zeros(1, 32))),
}


@pytest.mark.parametrize("name", [*READS, *OTHER_READS])
def test_signals_that_were_not_declared(name: str) -> None:
    signal, read = OTHER_READS.get(name) or (name, READS[name])
    others = frozenset({"positions", "values", "keys", "hidden"}) - {signal}
    method = Given(answer=read, at=(Stage(LAYER, others),))
    sentence = f"^Given reads the signal '{signal}' before layer 3 without naming it"
    model = model_of("llava15")
    with pruned(model, method), pytest.raises(UserError, match=sentence):
        run(model, ONE.inputs)


def test_a_tower_layer_that_was_not_declared() -> None:
    needs = frozenset({"tower_attention"})
    method = Given(answer=lambda view: view.tower_attention(-1), at=(Stage(0, needs),))
    sentence = (
        r"^Given reads layer -1 of the vision tower, but its stage declares tower_layers \[-2"
    )
    model = model_of("llava15")
    with pruned(model, method), pytest.raises(UserError, match=sentence):
        run(model, ONE.inputs)


def test_a_question_that_nobody_gave() -> None:
    method = Given(answer=lambda view: view.question(), at=(Stage(3, frozenset({"question"})),))
    model = model_of("llava15")
    with pruned(model, method) as session:
        with pytest.raises(UserError, match=r"^Given reads the question: set session\.questions"):
            run(model, ONE.inputs)
        session.questions = ["a", "b"]
        with pytest.raises(
            UserError, match=r"^questions must name each sample of the batch; got 2"
        ):
            run(model, ONE.inputs)


ALL_SIGNALS: Any = frozenset(READS) - {"question", "text_encoder"}


def everything(view: Any) -> list[Tensor]:
    """All that a view shows."""
    queries = len(view.queries)
    shown = [
        view.index, view.positions(), view.inverse_frequencies(), *view.values(),
        view.other_values(), *view.keys(), view.last_attention(), view.hidden(),
        view.text_hidden(), view.final_norm(view.hidden()),
        view.attention(torch.arange(queries)), view.mean_attention(torch.ones(queries)),
        view.embeddings(), view.text_embeddings(), view.tower_attention(), view.tower_keys(),
        view.tower_features(), view.tower_cls(), view.project(view.tower_features()),
    ]  # fmt: skip
    return [one for one in shown if one is not None]


@pytest.mark.parametrize("family", ["llava15", "qwen25vl", "internvl", "deepseekvl2"])
@pytest.mark.parametrize("source", ["previous", "next"])
def test_a_pruner_that_writes_into_what_it_is_shown(family: str, source: Any) -> None:
    """It spoils its own copies alone: neither other images, later stages nor the model."""
    seen: dict[bool, list[Tensor]] = {True: [], False: []}
    model, image = model_of(family), SMALL[family].images[1]
    inputs = prompts([5, image, 7, image, 9], [5, image, 20], family=family).inputs
    results = []
    for spoils in (True, False):

        def answer(view: Any, spoils: bool = spoils) -> Selection:
            count = len(view.index)
            shown = everything(view)
            seen[spoils] += [one.clone() for one in shown]
            for one in shown if spoils else []:
                one.fill_(1)
            return Selection(torch.arange(0, count, 2))

        stages = tuple(Stage(layer, ALL_SIGNALS, signals_from=source) for layer in (2, 4))
        with pruned(model, Given(answer=answer, at=stages)) as session:
            results.append((run(model, inputs).logits, session.kept, session.remaining))
            run(model, inputs)
    (logits, kept, left), (others, same, also) = results
    assert torch.equal(logits, others)
    for first, second in zip([*kept, *left], [*same, *also], strict=True):
        assert torch.equal(first, second)
    assert len(seen[True]) == len(seen[False])
    for first, second in zip(seen[True], seen[False], strict=True):
        close(first.float(), second.float())


@pytest.mark.parametrize("what", ["tokens", "on_padding", "thumbnail_index"])
def test_a_pruner_that_writes_into_a_layout(what: str) -> None:
    """Layouts are shared by stages and results; they are for reading, yet no selection suffers."""
    model, results = model_of("llava15"), []
    for spoils in (False, True):

        def answer(view: View, spoils: bool = spoils) -> Selection:
            if spoils:
                getattr(view.image, what).fill_(0)
            return Selection(torch.arange(0, len(view.index), 2))

        with pruned(model, Given(answer=answer, at=(Stage(2), Stage(4)))) as session:
            results.append((run(model, ONE.inputs).logits, session.kept[0]))
    assert torch.equal(results[0][1], results[1][1])
    assert torch.equal(results[0][0], results[1][0])


def test_a_pruner_that_raises_leaves_nothing_behind(greedy: Any) -> None:
    """Its own error comes through, and the next pass, in the same session, is right."""
    model, fails = model_of("llava15"), [True]

    def answer(view: View) -> Selection:
        if fails.pop():
            raise ZeroDivisionError("mine")
        fails.append(False)
        return Selection(torch.arange(0, COUNT, 2))

    fine = Given(answer=lambda _: Selection(torch.arange(0, COUNT, 2)))
    with pruned(model, fine):
        expected = greedy(model, ONE.inputs)
    fails.insert(0, False)
    with pruned(model, Given(answer=answer)):
        with pytest.raises(ZeroDivisionError, match="mine"):
            greedy(model, ONE.inputs)
        found = greedy(model, ONE.inputs)
    assert torch.equal(torch.cat(found.logits), torch.cat(expected.logits))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_budget_holds_whatever_the_shares(share: float) -> None:
    method = IVCPrune(keep_ratio=0.5, layer=LAYER, foreground_share=share)
    kept = kept_by(model_of("llava15"), ONE.inputs, method)
    assert len(kept[0]) <= COUNT // 2


# --- numbers and types of hyperparameters


def test_numpy_numbers() -> None:
    model, plain = model_of("llava15"), UniformGrid(keep_ratio=0.5, layer=3)
    for ratio in (np.float64(0.5), np.float32(0.5), np.float16(0.5)):
        for layer in (np.int64(3), np.int32(3), np.arange(5)[3]):
            method = UniformGrid(keep_ratio=ratio, layer=layer)
            assert method == plain
            assert type(method.layer) is int
            assert type(method.keep_ratio) is float
    sweep = SparseVLM(keep_ratio=0.5, layers=tuple(np.array([2, 3, 5])))
    assert sweep == METHODS["sparsevlm"]
    kept = kept_by(model, ONE.inputs, UniformGrid(keep_ratio=np.linspace(0, 1, 3)[1], layer=3))
    assert torch.equal(kept[0], kept_by(model, ONE.inputs, plain)[0])


FIELDS: dict[str, tuple[Callable[[], Any], str]] = {
    "layer true": (lambda: FastV(layer=True), "layer must be a whole number or auto; got True"),
    "layer numpy true": (lambda: FastV(layer=np.True_), "layer must be a whole number or auto"),
    "layer half": (lambda: FastV(layer=2.5), "layer must be a whole number or auto; got 2.5"),
    "layer word": (lambda: FastV(layer="2"), "layer must be a whole number or auto; got '2'"),
    "layer none": (lambda: FastV(layer=None), "layer must be a whole number or auto; got None"),
    "ratio true": (lambda: FastV(keep_ratio=True), "keep_ratio must be a number; got True"),
    "ratio word": (lambda: FastV(keep_ratio="0.5"), "keep_ratio must be a number; got '0.5'"),
    "ratio none": (lambda: FastV(keep_ratio=None), "keep_ratio must be a number; got None"),
    "ratio tensor": (lambda: FastV(keep_ratio=torch.tensor(0.5)), "keep_ratio must be a number"),
    "ratio zero": (lambda: FastV(keep_ratio=0), r"keep_ratio must be a number in \(0, 1\]"),
    "ratio percent": (lambda: FastV(keep_ratio=50), r"keep_ratio must be a number in \(0, 1\]"),
    "ratio nan": (lambda: FastV(keep_ratio=float("nan")), r"keep_ratio must .* in \(0, 1\]"),
    "switch number": (lambda: FastV(prune_earlier_kv=1), "prune_earlier_kv must be true or false"),
    "switch word": (lambda: FastV(renumber="no"), "renumber must be true or false or ranks or"),
    "layers number": (lambda: SparseVLM(layers=3), "layers must be a list"),
    "layers word": (lambda: SparseVLM(layers="3"), "layers must be a list"),
    "layers descending": (lambda: SparseVLM(layers=(3, 2)), "layers must be ascending"),
    "layers true": (lambda: SparseVLM(layers=(True, 2)), "layers must be a list"),
    "choice": (lambda: IVCPrune(softmax="row"), "softmax must be image or prompt; got 'row'"),
    "share": (lambda: IVCPrune(cos_share=1.5), r"cos_share must lie in \[0, 1\]"),
    "parts": (lambda: Compose(parts=(FastV, FastV)), "parts must be a list, each item a Pruner"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FIELDS)
def test_fields_of_another_type(kind: str) -> None:
    make, sentence = FIELDS[kind]
    with pytest.raises(UserError, match="^" + sentence):
        make()


@dataclass(frozen=True, kw_only=True)
class Untyped(UniformGrid):
    """A field of any type."""

    note: Any = None


def test_a_field_of_any_type() -> None:
    assert len(kept_by(model_of("llava15"), ONE.inputs, Untyped(note=[1], layer=LAYER))[0]) == 18


# --- threads, copies, what belongs to the user


def in_threads(*jobs: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("family", ["llava15", "qwen25vl", "llavanext"])
@pytest.mark.parametrize("name", ["ivcp", "fastv", "visionzip"])
def test_two_threads(family: str, name: str, greedy: Any) -> None:
    model = model_of(family)
    a, b, *_ = SMALL[family].images
    batches = [prompts([5, a, 7], family=family), prompts([20, b, 30, b, 4], family=family)]
    ready = threading.Barrier(2)
    with pruned(model, METHODS[name]) as session:
        alone = []
        for batch in batches:
            out = greedy(model, batch.inputs, 4)
            alone.append((out.sequences, session.kept[0], session.remaining[0]))

        def answer(number: int) -> None:
            ready.wait()
            for _ in range(5):
                out = greedy(model, batches[number].inputs, 4)
                sequences, kept, left = alone[number]
                assert torch.equal(out.sequences, sequences)
                assert torch.equal(session.kept[0], kept)
                assert torch.equal(session.remaining[0], left)

        in_threads(functools.partial(answer, 0), functools.partial(answer, 1))


def test_a_session_read_from_another_thread(greedy: Any) -> None:
    """As with a streamer: a worker generates, the main thread asks what was kept."""
    model = model_of("llava15")
    with pruned(model, UNIFORM) as session:
        in_threads(lambda: greedy(model, ONE.inputs))
        assert len(session.kept[0]) == COUNT // 2
        greedy(model, llava(9, SIDE, 3, SIDE, 5).inputs)
        in_threads(lambda: greedy(model, ONE.inputs))
        assert len(session.kept[0]) == COUNT, "the main thread has a prefill of its own"


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "torch.save": lambda model: torch.save(model, io.BytesIO()),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", ["uniform", "visionzip"])
def test_copies_inside(how: str, name: str) -> None:
    model = SMALL["llava15"].model()
    sentence = r"^A model cannot be copied or saved whole inside pruned\(\)"
    with pruned(model, METHODS[name]), pytest.raises(UserError, match=sentence):
        COPIES[how](model)
    COPIES[how](model)


def test_weights_are_saved_and_loaded_inside(tmp_path: Path, greedy: Any) -> None:
    model = SMALL["llava15"].model()
    with pruned(model, UNIFORM):
        before = greedy(model, ONE.inputs).sequences
        model.save_pretrained(tmp_path)
        model.load_state_dict(model.state_dict())
        assert torch.equal(greedy(model, ONE.inputs).sequences, before)
        other = type(model).from_pretrained(tmp_path)
    with pruned(other, UNIFORM):
        assert torch.equal(greedy(other, ONE.inputs).sequences, before)


@pytest.mark.parametrize("name", ["generate", "get_image_features"])
def test_a_users_own_method_survives(name: str, greedy: Any) -> None:
    model, calls = SMALL["llava15"].model(), []
    owner = model if name == "generate" else model.model
    original = getattr(owner, name)

    @functools.wraps(original)
    def own(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(*args, **kwargs)

    setattr(owner, name, own)
    with pruned(model, UNIFORM):
        greedy(model, ONE.inputs, 2)
        assert calls == [1]
    assert vars(owner)[name] is own
    greedy(model, ONE.inputs, 2)
    assert calls == [1, 1]


def test_a_users_own_hooks_see_what_is_left() -> None:
    """As activation studies use them; they are still there behind the block."""
    model, sizes = SMALL["llava15"].model(), []
    layers = model.model.language_model.layers
    for layer in layers:
        layer.register_forward_hook(lambda _, __, out: sizes.append(out.shape[1]))
        layer.register_forward_pre_hook(lambda _, args: None)
    with pruned(model, UNIFORM):
        run(model, ONE.inputs)
    left = ONE.lengths[0] - COUNT // 2
    assert sizes == [ONE.lengths[0]] * LAYER + [left] * (6 - LAYER)
    assert all(len(layer._forward_hooks) == len(layer._forward_pre_hooks) == 1 for layer in layers)


def test_the_session_after_text_alone(greedy: Any) -> None:
    model = model_of("llava15")
    with pruned(model, UNIFORM) as session:
        greedy(model, ONE.inputs)
        assert len(session.kept[0])
        greedy(model, llava(14).inputs)
        assert [len(kept) for kept in session.kept] == [0]
        assert session.reasons == [[]]
        assert [layout.length for layout in session.layouts] == [14]
        assert not session.layouts[0].images
        assert torch.equal(session.remaining[0], torch.arange(14))


# --- models inside others


old_peft = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def lora(model: Any) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "k_proj", "v_proj", "down_proj"], init_lora_weights=False
    )
    return peft.get_peft_model(model, config).eval()


@old_peft
@every_family
@pytest.mark.parametrize("name", ["ivcp", "fastv"])
def test_a_peft_model(family: str, name: str, greedy: Any) -> None:
    decoder = find_family(model_of(family)).decoder(model_of(family))
    if not hasattr(decoder.layers[-1].self_attn, "k_proj"):
        pytest.skip("no q_proj, k_proj and v_proj in latent attention")
    wrapped = lora(SMALL[family].model())
    batch = prompts([5, SMALL[family].images[0], 9], family=family)
    with pruned(wrapped, METHODS[name]) as session:
        found, kept = greedy(wrapped, batch.inputs), session.kept[0]
        logits = run(wrapped, batch.inputs).logits
    merged = wrapped.merge_and_unload()
    with pruned(merged, METHODS[name]) as session:
        expected = greedy(merged, batch.inputs)
    assert torch.equal(session.kept[0], kept)
    close(torch.cat(found.logits), torch.cat(expected.logits))
    close(logits[:, -1], found.logits[0])


@old_peft
def test_a_peft_model_refuses_alike() -> None:
    wrapped = lora(SMALL["llava15"].model())
    with pruned(wrapped, UNIFORM), pytest.raises(UserError, match=r"^use_cache=False cannot"):
        wrapped.generate(**ONE.inputs, max_new_tokens=2, use_cache=False)


class Own(nn.Module):
    """As DistributedDataParallel, or a user's module, holds a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


@every_family
@pytest.mark.parametrize("depth", [1, 2])
def test_a_model_inside_another_module(family: str, depth: int) -> None:
    model = model_of(family)
    inputs = prompts([5, SMALL[family].images[0], 9], family=family).inputs
    outer = model
    for _ in range(depth):
        outer = Own(outer)
    with pruned(model, METHODS["ivcp"]):
        expected = run(model, inputs).logits
    with pruned(outer, METHODS["ivcp"]) as session:
        found = run(outer, inputs).logits
    assert torch.equal(found, expected)
    assert len(session.kept) == 1


def test_distributed_data_parallel(tmp_path: Path) -> None:
    if torch.distributed.is_initialized() or not torch.distributed.is_available():
        pytest.skip("another test has a process group")
    model = SMALL["llava15"].model()
    model.model.vision_tower.requires_grad_(False)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        outer = nn.parallel.DistributedDataParallel(model)
        labels, _ = labelled(ONE)
        with pruned(outer, UNIFORM) as session:
            loss = outer(**ONE.inputs, labels=labels).loss
            loss.backward()
        assert len(session.kept[0]) == COUNT // 2
        with pruned(model, UNIFORM):
            close(run(model, ONE.inputs, labels=labels).loss, loss.detach())
    finally:
        torch.distributed.destroy_process_group()


@every_family
@pytest.mark.parametrize("name", ["ivcp", "fastv", "visionzip"])
def test_a_model_without_its_head(family: str, name: str) -> None:
    model = model_of(family)
    inputs = prompts([5, SMALL[family].images[0], 9], family=family).inputs
    with pruned(model, METHODS[name]) as session:
        expected = run(model, inputs).logits
        kept = session.kept[0]
    with pruned(model.model, METHODS[name]) as session:
        found = run(model.model, inputs).last_hidden_state
    assert torch.equal(session.kept[0], kept)
    close(model.lm_head(found).detach(), expected)


def test_the_models_language_model_alone_is_refused() -> None:
    with pytest.raises(UserError, match=r"^pruned\(\) supports models of type .*; got 'llama'"):
        attach(model_of("llava15").model.language_model, UNIFORM)


def test_embeddings_handed_to_the_language_model_itself() -> None:
    """They pass by the model that knows where images stand; text may."""
    model = model_of("llava15")
    decoder, batch = model.model.language_model, llava(14)
    with torch.no_grad():
        embeds = torch.randn(1, 20, 64)
        plain = decoder(input_ids=batch.inputs["input_ids"]).last_hidden_state
        with pruned(model, UNIFORM):
            same = decoder(input_ids=batch.inputs["input_ids"]).last_hidden_state
            assert torch.equal(same, plain)
            with pytest.raises(UserError, match=r"visual tokens by their ids"):
                decoder(inputs_embeds=embeds)


def test_positional_arguments() -> None:
    model, inputs = model_of("llava15"), ONE.inputs
    ids, pixels, mask = (inputs[key] for key in ("input_ids", "pixel_values", "attention_mask"))
    with pruned(model, METHODS["ivcp"]) as session:
        expected, kept = run(model, inputs).logits, session.kept[0]
        with torch.no_grad():
            assert torch.equal(model(ids, pixels, mask).logits, expected)
    with torch.no_grad(), pruned(model.model, METHODS["ivcp"]) as session:
        states = model.model(ids, pixels, mask).last_hidden_state
        assert torch.equal(session.kept[0], kept)
    close(model.lm_head(states).detach(), expected)


@pytest.mark.parametrize("family", ["qwen2vl", "internvl", "deepseekvl2"])
def test_positional_ids(family: str) -> None:
    model = model_of(family)
    inputs = dict(prompts([5, SMALL[family].images[0], 9], family=family).inputs)
    with pruned(model, METHODS["ivcp"]), torch.no_grad():
        expected = model(**inputs).logits
        ids = inputs.pop("input_ids")
        assert torch.equal(model(ids, **inputs).logits, expected)


# --- where images stand


@pytest.mark.parametrize("family", ["llava15", "deepseekvl"])
@pytest.mark.parametrize("sample", [[5, SIDE], [SIDE], [4, SIDE, 3, SIDE], [SIDE, SIDE]], ids=str)
@one_stage
def test_an_image_at_the_end(family: str, sample: Any, name: str) -> None:
    assert_hidden(model_of(family), prompts(sample, family=family), METHODS[name])


@every_family
@every_method
@pytest.mark.parametrize("text", [[5], []], ids=["behind text", "alone"])
def test_an_image_at_the_end_of_any_family(
    family: str, name: str, text: list[int], greedy: Any
) -> None:
    model, image = model_of(family), SMALL[family].images[0]
    batch = prompts([*text, image], family=family)
    with pruned(model, METHODS[name]) as session:
        out = greedy(model, batch.inputs, 2)
    count = len(batch.tokens[0][0])
    assert len(session.kept[0]) <= round(count / 2)
    assert out.sequences.shape[1] == batch.lengths[0] + 2


def test_rows_that_end_with_their_image() -> None:
    """Beside rows that do not; what is left is padded by length, so each row's end is its own."""
    model, batch = model_of("llava15"), prompts([5, SIDE], [3, SIDE, 9], [14], family="llava15")
    for name in METHODS:
        with pruned(model, METHODS[name]):
            together = run(model, batch.inputs).logits
            for row in range(3):
                alone = run(model, single(batch, row)).logits
                close(together[row, -1], alone[0, -1])


# --- embeddings, positions, types


@every_family
def test_embeddings_of_text(family: str, greedy: Any) -> None:
    model, inputs = model_of(family), prompts([14], family=family).inputs
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    plain = run(model, {"inputs_embeds": embeds}).logits
    with pruned(model, UNIFORM):
        assert torch.equal(run(model, {"inputs_embeds": embeds}).logits, plain)
        if takes_embeddings(model):
            assert greedy(model, {"inputs_embeds": embeds}, 2).sequences.shape == (1, 2)


@every_family
@pytest.mark.parametrize("what", ["image features", "noise", "a soft prompt", "another dtype"])
def test_embeddings_of_anything_else(family: str, what: str) -> None:
    model, inputs = model_of(family), prompts([14], family=family).inputs
    embeds = model.get_input_embeddings()(inputs["input_ids"]).detach()
    if what == "another dtype":
        embeds = embeds.double()
    elif what == "a soft prompt":
        embeds = torch.cat([torch.randn(1, 2, 64), embeds], 1)
    else:
        embeds = embeds + (1e-3 if what == "noise" else 1)
    sentence = r"^pruned\(\) finds visual tokens by their ids: pass input_ids"
    with pruned(model, UNIFORM), pytest.raises(UserError, match=sentence):
        run(model, {"inputs_embeds": embeds})


QWENS = ("qwen2vl", "qwen25vl", "qwen3vl", "qwen35")


@pytest.mark.parametrize("family", QWENS)
@pytest.mark.parametrize("axes", [3, 4])
@pytest.mark.parametrize("types", [True, False])
@pytest.mark.parametrize("name", ["ivcp", "fastv", "visionzip"])
def test_own_positions_on_three_axes(family: str, axes: int, types: bool, name: str) -> None:
    model, (image, other, *_) = model_of(family), SMALL[family].images
    batch = prompts([5, image, 7, other, 4], [3, image, 1, other, 2], family=family)
    inputs = dict(batch.inputs)
    mask = inputs["attention_mask"]
    own = positions_of(model, family, inputs, mask)
    if axes == 4:  # the library takes text positions in front
        own = torch.cat([(mask.cumsum(1) - 1).clamp_min(0)[None], own])
    with pruned(model, METHODS[name]) as session:
        expected, kept = run(model, inputs).logits, session.kept
        if not types:
            del inputs["mm_token_type_ids"]
        found = run(model, {**inputs, "position_ids": own}).logits
        assert all(torch.equal(a, b) for a, b in zip(session.kept, kept, strict=True))
    close(found[:, -4:], expected[:, -4:])


@pytest.mark.parametrize("family", QWENS)
def test_own_positions_decide_ivc_tokens(family: str) -> None:
    """Positions that start elsewhere are what a pruner is shown."""
    seen: list[Tensor] = []

    def answer(view: View) -> Selection:
        seen.append(view.positions())
        return Selection(torch.arange(0, len(view.index), 2))

    model, batch = model_of(family), prompts([5, SMALL[family].images[0], 9], family=family)
    own = positions_of(model, family, batch.inputs, batch.inputs["attention_mask"])
    with pruned(model, Given(answer=answer, at=(Stage(LAYER, frozenset({"positions"})),))):
        run(model, {**batch.inputs, "position_ids": own + 100})
    assert torch.equal(seen[0], (own + 100)[:, 0, batch.tokens[0][0]])


@pytest.mark.parametrize("family", QWENS)
@pytest.mark.parametrize("how", ["forward", "generate"])
def test_missing_token_types(family: str, how: str) -> None:
    model = model_of(family)
    inputs = dict(prompts([5, SMALL[family].images[0], 9], family=family).inputs)
    del inputs["mm_token_type_ids"]
    sentence = r"^The inputs lack mm_token_type_ids"
    with pruned(model, UNIFORM), pytest.raises(UserError, match=sentence):
        (model if how == "forward" else functools.partial(model.generate, max_new_tokens=1))(
            **inputs
        )


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|video_pad|>"])
@pytest.mark.parametrize("family", QWENS)
def test_placeholders_in_a_question(family: str, token: str, tmp_path: Path) -> None:
    adapter, processor = setup(family, tmp_path)
    asked = Sample(
        id="row 4",
        task="open_ended",
        images=(),
        question=f"What is {token}?",
        answer="",
        options=(),
    )
    sentence = r"^A question must not hold the placeholder '<\|(image|video)_pad\|>'.*'row 4'"
    with pytest.raises(UserError, match=sentence):
        adapter.encode(processor, [asked])


# --- blocks, sessions, what is on and off


@pytest.mark.parametrize("outer", [pruned, attach])
@pytest.mark.parametrize("inner", [pruned, attach])
@pytest.mark.parametrize("part", ["model", "without head"])
def test_nested_sessions(outer: Any, inner: Any, part: str, greedy: Any) -> None:
    model = model_of("llava15")
    other = model if part == "model" else model.model
    plain = greedy(model, ONE.inputs).sequences
    with contextlib.ExitStack() as stack:
        first = outer(model, UNIFORM)
        session = stack.enter_context(first) if outer is pruned else first
        stack.callback(session.close)
        expected = greedy(model, ONE.inputs).sequences
        with pytest.raises(UserError, match=r"^This model is being pruned already"):
            second = inner(other, METHODS["fastv"])
            stack.enter_context(second)
        assert torch.equal(greedy(model, ONE.inputs).sequences, expected)
    assert torch.equal(greedy(model, ONE.inputs).sequences, plain)


def test_two_models_at_once(greedy: Any) -> None:
    first, second = model_of("llava15"), model_of("qwen25vl")
    inputs = prompts([5, (6, 9), 7]).inputs
    with pruned(first, UNIFORM) as one, pruned(second, METHODS["fastv"]) as two:
        greedy(first, ONE.inputs)
        greedy(second, inputs)
    assert (len(one.kept[0]), len(two.kept[0])) == (18, 27)


def test_attach_and_close(greedy: Any) -> None:
    model = model_of("llava15")
    plain = greedy(model, ONE.inputs)
    session = attach(model, UNIFORM)
    inside = greedy(model, ONE.inputs)
    assert not torch.equal(inside.logits[0], plain.logits[0])
    session.close()
    session.close()
    assert len(session.kept[0]) == COUNT // 2, "results stay"
    assert torch.equal(torch.cat(greedy(model, ONE.inputs).logits), torch.cat(plain.logits))
    with pruned(model, UNIFORM) as again:
        session.close()  # an old session ends no new one
        assert torch.equal(greedy(model, ONE.inputs).logits[0], inside.logits[0])
    assert len(again.kept[0]) == COUNT // 2


def test_closing_inside_a_block(greedy: Any) -> None:
    model = model_of("llava15")
    plain = greedy(model, ONE.inputs).logits[0]
    with pruned(model, UNIFORM) as session:
        session.close()
        assert torch.equal(greedy(model, ONE.inputs).logits[0], plain)


@pytest.mark.parametrize("error", [UserError, RuntimeError, KeyboardInterrupt])
def test_after_an_error_in_a_forward_pass(error: Any, greedy: Any) -> None:
    """As an interrupted cell, or one that ran out of memory."""
    model = SMALL["llava15"].model()
    plain = greedy(model, ONE.inputs).logits[0]

    def fail(*_: Any) -> None:
        raise error("stop")

    session = attach(model, UNIFORM)
    inside = greedy(model, ONE.inputs).logits[0]
    for layer in (0, 4):
        handle = model.model.language_model.layers[layer].register_forward_hook(fail)
        with pytest.raises(error, match="stop"):
            greedy(model, ONE.inputs)
        handle.remove()
        assert torch.equal(greedy(model, ONE.inputs).logits[0], inside)
    session.close()
    assert torch.equal(greedy(model, ONE.inputs).logits[0], plain)


def test_a_refused_model_is_left_alone() -> None:
    model = model_of("llava15")
    with pytest.raises(UserError, match="layer must lie in"):
        attach(model, FastV(layer=9))
    assert "generate" not in vars(model)
    attach(model, UNIFORM).close()


# --- compiled and offloaded models


SHALLOW = UniformGrid(keep_ratio=0.5, layer=1)
COMPILED = r"is compiled, and compiled code runs no hooks: prune the model as it was before"


def quick_to_compile() -> Any:
    """Two decoder layers, and images that are encoded uncompiled: each layer takes seconds."""
    model = SMALL["llava15"].model(layers=2)
    entry: Any = model.model
    entry.get_image_features = torch.compiler.disable(entry.get_image_features)
    return model


@pytest.mark.parametrize("part", ["model", "entry", "language model", "layer", "attention"])
def test_compiled_before(part: str) -> None:
    model = SMALL["llava15"].model()
    decoder = model.model.language_model
    parts = {
        "model": model, "entry": model.model, "language model": decoder,
        "layer": decoder.layers[2], "attention": decoder.layers[2].self_attn,
    }  # fmt: skip
    parts[part].compile(backend="eager")
    with pytest.raises(UserError, match=COMPILED):
        attach(model, UNIFORM)


@pytest.mark.parametrize("part", ["model", "language model"])
def test_compiled_by_torch(part: str) -> None:
    model = SMALL["llava15"].model()
    if part == "model":
        given = torch.compile(model, backend="eager")
    else:
        model.model.language_model = torch.compile(model.model.language_model, backend="eager")
        given = model
    with pytest.raises(UserError, match=COMPILED):
        attach(given, UNIFORM)


@pytest.mark.parametrize("warm", [False, True])
def test_compiled_inside(warm: bool) -> None:
    """The hooks run as they are between the compiled parts."""
    model = quick_to_compile()
    with pruned(model, SHALLOW) as session:
        if warm:
            run(model, ONE.inputs)
        model.compile(backend="eager")
        found = run(model, ONE.inputs).logits
    assert found.shape[1] == len(session.remaining[0]) == ONE.lengths[0] - COUNT // 2


def test_called_through_a_wrapper_that_was_compiled_before() -> None:
    """Compiled code runs the hooks that were there when it was made, so it is made anew."""
    model = quick_to_compile()
    compiled: Any = torch.compile(model, backend="eager")
    whole = [run(compiled, ONE.inputs).logits for _ in range(2)]
    with pruned(model, SHALLOW) as session:
        found = run(compiled, ONE.inputs).logits
        assert found.shape[1] == len(session.remaining[0]) == ONE.lengths[0] - COUNT // 2
    after = run(compiled, ONE.inputs).logits
    torch.testing.assert_close(after, whole[1], atol=1e-5, rtol=1e-5)


OFFLOADED = [(family, "forward") for family, known in EXPECTED.items() if known.runs_offloaded]
OFFLOADED += [
    (family, "generate") for family, known in EXPECTED.items() if known.generates_offloaded
]


@pytest.mark.parametrize(("family", "how"), OFFLOADED)
@pytest.mark.parametrize("name", ["ivcp", "fastv", "visionzip"])
@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_offloaded_models(
    family: str, how: str, name: str, where: str, tmp_path: Path, greedy: Any
) -> None:
    accelerate = pytest.importorskip("accelerate")
    model, image = SMALL[family].model(), SMALL[family].images[0]
    inputs = prompts([5, image, 9], family=family).inputs

    def logits() -> Tensor:
        with pruned(model, METHODS[name]):
            if how == "forward":
                return run(model, inputs).logits
            return torch.cat(greedy(model, inputs).logits)

    expected = logits()
    if where == "cpu":
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        accelerate.disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    assert next(find_family(model).decoder(model).parameters()).device.type == "meta"
    close(logits(), expected)


def test_autocast_and_inference_mode() -> None:
    model = model_of("llava15")
    kept = kept_by(model, ONE.inputs, METHODS["ivcp"])
    with pruned(model, METHODS["ivcp"]) as session:
        with torch.inference_mode():
            expected = model(**ONE.inputs).logits
        assert torch.equal(session.kept[0], kept[0])
        with torch.autocast("cpu", torch.bfloat16):
            found = run(model, ONE.inputs).logits
        assert found.shape == expected.shape
    with pruned(model, UNIFORM):
        with torch.autocast("cpu", torch.bfloat16):
            half = run(model, ONE.inputs).logits.float()
        assert F.cosine_similarity(half, run(model, ONE.inputs).logits, -1).mean() > 0.98


def test_moved_to_another_dtype_inside(greedy: Any) -> None:
    model = SMALL["llava15"].model()
    inputs = {**ONE.inputs, "pixel_values": ONE.inputs["pixel_values"].double()}
    with pruned(model, METHODS["fastv"]) as session:
        greedy(model, ONE.inputs)
        model.double()
        found = greedy(model, inputs)
        kept = session.kept[0]
    with pruned(model, METHODS["fastv"]) as session:
        expected = greedy(model, inputs)
    assert torch.equal(kept, session.kept[0])
    assert torch.equal(torch.cat(found.logits), torch.cat(expected.logits))
