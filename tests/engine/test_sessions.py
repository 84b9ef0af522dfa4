"""What a session leaves behind, and which methods can be wrapped."""

from __future__ import annotations

import gc
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner
from ivcp.core.selection import Selection
from ivcp.engine.prefill import Prefill
from ivcp.pruners.compose import Compose
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning
from ivcp.pruners.plus_ivc import PlusIVC
from ivcp.pruners.random import RandomPruning
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.pruners.uniform import UniformGrid
from ivcp.testing import SMALL, model_of, prompts, single

METHODS: list[Pruner] = [
    UniformGrid(keep_ratio=0.5, layer=3),
    FastV(keep_ratio=0.5, layer=3),
    SparseVLM(keep_ratio=0.5, layers=(2, 3, 5)),
]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda one: type(one).__name__)
BATCH = prompts([5, (6, 6), 9], [13, (6, 6), 12], family="llava15")


def positions_of(mask: Tensor) -> Tensor:
    return (mask.cumsum(1) - 1).clamp_min(0)


def turn(model: Any, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
    where = positions_of(mask)[:, -ids.shape[1] :]
    found: Tensor = model(
        input_ids=ids, attention_mask=mask, position_ids=where, past_key_values=cache
    ).logits
    return found


@every_method
def test_what_remains_behind_each_stage_is_told(method: Pruner) -> None:
    with torch.no_grad(), pruned(model_of("llava15"), method) as session:
        model_of("llava15")(**BATCH.inputs)
        after = session.kept_after
    assert [len(rows) for rows in after] == [2] * len(method.stages())
    for row, kept in enumerate(session.kept):
        stages = [set(rows[row].tolist()) for rows in after]
        assert all(later < earlier for earlier, later in pairwise(stages))
        assert torch.equal(after[-1][row], kept)


@every_method
@pytest.mark.parametrize("removed", [3, 20])
def test_a_cropped_cache_goes_on_or_stays_as_it_was(method: Pruner, removed: int) -> None:
    """Rows of unequal length; three tokens of text can go, tokens of the image cannot."""
    model, more = model_of("llava15"), torch.full((2, 2), 33)
    mask = BATCH.inputs["attention_mask"]
    logits = []
    for crop in (False, True):
        cache = DynamicCache()
        with torch.no_grad(), pruned(model, method):
            model(**BATCH.inputs, position_ids=positions_of(mask), past_key_values=cache)
            if removed == 3:
                tail = torch.full((2, 3), 40)
                longer = torch.cat([mask, torch.ones(2, 3, dtype=torch.long)], 1)
                if crop:
                    turn(model, tail, longer, cache)
                    cache.crop(-removed)
            elif crop:
                with pytest.raises(UserError, match="can be removed"):
                    cache.crop(-removed)
            ends = torch.cat([mask, torch.ones(2, 2, dtype=torch.long)], 1)
            logits.append(turn(model, more, ends, cache))
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)


@every_method
def test_nothing_is_cropped_behind_padding_on_the_right(method: Pruner) -> None:
    model, inputs = model_of("llava15"), dict(BATCH.inputs)
    short = BATCH.lengths[0]
    for name in ("input_ids", "attention_mask"):
        rows = inputs[name].clone()
        rows[0] = torch.cat([rows[0, -short:], rows[0, :-short]])
        inputs[name] = rows
    cache = DynamicCache()
    with torch.no_grad(), pruned(model, method):
        where = positions_of(inputs["attention_mask"])
        model(**inputs, position_ids=where, past_key_values=cache)
        with pytest.raises(UserError, match="can be removed"):
            cache.crop(-2)


def test_a_refused_pass_leaves_the_next_alone() -> None:
    model, inputs = model_of("llava15"), single(BATCH, 0)
    with torch.no_grad(), pruned(model, METHODS[0]) as session:
        with pytest.raises(UserError, match="logits_to_keep"):
            model(**inputs, logits_to_keep=torch.tensor([3]))
        model.model(**inputs)
        assert len(session.kept[0]) == 18


@pytest.mark.parametrize("headless", [False, True])
def test_a_finished_pass_is_let_go(headless: bool) -> None:
    model: Any = SMALL["llava15"].model()
    part = model.model if headless else model
    with torch.no_grad(), pruned(part, METHODS[1]) as session:
        part(**single(BATCH, 0))
        assert session.kept
        gc.collect()
        assert not [one for one in gc.get_objects() if type(one) is Prefill]


def test_labels_without_pruning_are_the_models_own_affair() -> None:
    model, inputs = model_of("llava15"), single(BATCH, 0)
    shifted = {"labels": inputs["input_ids"], "shift_labels": inputs["input_ids"].roll(-1, 1)}
    with torch.no_grad():
        plain = model(**inputs, **shifted).loss
        with pruned(model, NoPruning()):
            assert torch.equal(model(**inputs, **shifted).loss, plain)
        with pruned(model, METHODS[0]), pytest.raises(UserError, match="shift_labels"):
            model(**inputs, **shifted)


def test_a_module_with_two_models_names_neither() -> None:
    both = nn.ModuleList([SMALL["llava15"].model(), SMALL["qwen25vl"].model()])
    with pytest.raises(UserError, match="holds 2 models"):
        pruned(both, METHODS[0]).__enter__()
    with pytest.raises(UserError, match="model must be a Hugging Face model; got a str"):
        pruned("llava", METHODS[0]).__enter__()  # type: ignore[arg-type]


class Shared(RandomPruning):
    """Decides for all images together."""

    def select_sample(self, views: Any, stage: int) -> list[Selection]:
        return [Selection(torch.arange(1)) for _ in views]


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Compose(parts=(FastV(), Shared())), "decides for all images together"),
        (lambda: PlusIVC(base=Shared()), "base must decide for each image alone"),
        (lambda: Compose(parts=(FastV(), PlusIVC(base=FastV()))), "needs all tokens"),
        (
            lambda: Compose(parts=(FastV(), Compose(parts=(UniformGrid(), FastV())))),
            "needs all tokens",
        ),
        (lambda: PlusIVC(base=IVCPrune(foreground_share=0.4)), "prunes to a ratio"),
        (
            lambda: PlusIVC(
                base=Compose(parts=(FastV(), FastV(layer=4)), ratios="own", keep_ratio=0.25)
            ),
            "prunes to a ratio",
        ),
    ],
)
def test_methods_that_cannot_be_wrapped(build: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build()


def test_a_layout_is_not_spoiled_by_who_is_shown_it() -> None:
    class Careless(RandomPruning):
        def select(self, view: Any, stage: int) -> Selection:
            found = super().select(view, stage)
            for tensor in (
                view.image.tokens,
                view.image.thumbnail_index,
                view.image.grids[0].tokens,
            ):
                tensor.zero_()
            return found

    with torch.no_grad(), pruned(model_of("llava15"), Careless(layer=3)) as session:
        model_of("llava15")(**single(BATCH, 0))
    (image,) = session.layouts[0].images
    assert torch.equal(image.tokens, BATCH.tokens[0][0])
    assert image.thumbnail_index.tolist() == list(range(36))


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("embedded", [False, True])
def test_a_prompt_of_text_alone_replaces_the_one_before(length: int, embedded: bool) -> None:
    model: Any = model_of("llava15")
    text = torch.full((2, length), 33)
    inputs = (
        {"inputs_embeds": model.get_input_embeddings()(text)} if embedded else {"input_ids": text}
    )
    with torch.no_grad(), pruned(model, METHODS[0]) as session:
        model(**single(BATCH, 0))
        model(**inputs)
    assert [len(kept) for kept in session.kept] == [0, 0]
    assert [len(left) for left in session.remaining] == [length, length]
