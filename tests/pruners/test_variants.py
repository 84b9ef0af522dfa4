"""What the ablations change: positions, caches of earlier layers, seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from families import LlamaWindow, small_llama
from recorded import RecordedView
from transformers import DynamicCache

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.core.pruner import Pruner
from ivcp.pruners.foreground import ForegroundOnly
from ivcp.pruners.ivc import IVCOnly
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.testing import batch_of, model_of, single

IMAGE = ImageLayout((Grid(3, 6, 6),))
METHODS = [IVCOnly(layer=3), ForegroundOnly(layer=3), IVCPrune(layer=3)]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda one: type(one).__name__)


@pytest.mark.parametrize("renumber", [True, False])
def test_gapless_positions_are_those_of_a_shorter_prompt(renumber: bool) -> None:
    """Pruned before layer 0, the model is as if it had never been given the dropped tokens."""
    model = small_llama(layers=3)
    prompt, more = torch.randn(1, 45, 32), torch.randn(1, 1, 32)
    pruner = IVCOnly(keep_ratio=0.5, layer=0, renumber=renumber)
    caches = [DynamicCache(config=model.config) for _ in range(2)]
    with torch.no_grad():
        with pruned(model, pruner, family=LlamaWindow(IMAGE)) as session:
            states = [model(inputs_embeds=prompt, past_key_values=caches[0]).last_hidden_state]
            states += [model(inputs_embeds=more, past_key_values=caches[0]).last_hidden_state]
        stay = torch.ones(45, dtype=torch.bool)
        stay[IMAGE.tokens] = False
        stay[session.kept[0]] = True
        short = prompt[:, stay]
        plain = [model(inputs_embeds=short, past_key_values=caches[1]).last_hidden_state]
        plain += [model(inputs_embeds=more, past_key_values=caches[1]).last_hidden_state]
    for found, expected in zip(states, plain, strict=True):
        assert torch.allclose(found, expected, atol=1e-5) == renumber


@every_method
def test_positions_change_answers_but_not_the_selection(method: Pruner, greedy) -> None:
    model, batch = model_of("qwen25vl"), batch_of("qwen25vl")
    kept, logits = [], []
    for renumber in (False, True):
        with pruned(model, replace(method, renumber=renumber)) as session:
            together = greedy(model, batch.inputs)
            kept.append(session.kept)
            logits.append(together.logits[-1])
            for number, length in enumerate(batch.lengths):
                alone = greedy(model, single(batch, number))
                assert torch.equal(alone.sequences[0], together.sequences[number, -length - 3 :])
    assert all(torch.equal(a, b) for a, b in zip(*kept, strict=True))
    assert not torch.allclose(*logits, atol=1e-3)


@every_method
def test_earlier_caches_can_stay_whole(method: Pruner, greedy) -> None:
    model, batch = model_of("qwen25vl"), batch_of("qwen25vl")
    for cut in (True, False):
        with pruned(model, replace(method, prune_earlier_kv=cut)) as session:
            greedy(model, batch.inputs, 2)
        first, last = session.cache_lengths[0], session.cache_lengths[-1]
        assert first == (last if cut else batch.lengths)


def test_without_seeds_the_text_alone_scores() -> None:
    states = torch.randn(2, 45, 16, generator=torch.Generator().manual_seed(0))
    view = RecordedView(IMAGE, PromptLayout(45, (IMAGE,)), states, 10000.0)
    keep = ForegroundOnly(keep_ratio=0.25, seed_ratio=0).select(view, 0).keep
    scores = [0.0] * 36
    for query in range(IMAGE.stop + 2, 45):
        for head in states:
            logits = torch.stack([head[query] @ head[token] / 4 for token in IMAGE.tokens])
            for token, weight in enumerate(logits.softmax(0)):
                scores[token] += weight.item()
    best = sorted(range(36), key=lambda token: -scores[token])[:9]
    assert keep.tolist() == sorted(best)
    seeded = ForegroundOnly(keep_ratio=0.25, seed_ratio=0.1).select(view, 0).keep
    assert keep.tolist() != seeded.tolist()


def test_a_share_of_seeds_beyond_all_tokens_is_refused() -> None:
    with pytest.raises(UserError, match=r"seed_ratio must lie in \[0, 1\]; got 1.5"):
        ForegroundOnly(seed_ratio=1.5)


@pytest.mark.parametrize("family", ["qwen25vl", "internvl"])
@pytest.mark.parametrize("renumber", [True, False])
def test_decoding_goes_on_from_the_right_position(family: str, renumber: bool) -> None:
    """Token by token equals one longer prompt, where no token leaves an earlier layer."""
    model, inputs = model_of(family), single(batch_of(family), 1)
    more = torch.randint(3, 80, (1, 4), generator=torch.Generator().manual_seed(0))
    longer = {**inputs, "input_ids": torch.cat([inputs["input_ids"], more], 1)}
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if name in inputs:
            longer[name] = torch.nn.functional.pad(inputs[name], (0, 4), value=value)
    cache = DynamicCache(config=model.config.text_config)
    pruner = IVCOnly(keep_ratio=0.4, layer=3, prune_earlier_kv=False, renumber=renumber)
    with torch.no_grad(), pruned(model, pruner):
        model(**inputs, past_key_values=cache, use_cache=True)
        steps = [model(input_ids=token, past_key_values=cache).logits for token in more.split(1, 1)]
        whole = model(**longer, use_cache=False).logits[:, -4:]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"table": (3, 2, -1)}, "table must hold numbers of at least 1; got"),
     ({"rank_scale": 0}, "rank_scale must be above 0; got 0")],
)  # fmt: skip
def test_budgets_that_keep_nothing(fields, message) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        SparseVLM(**fields)
