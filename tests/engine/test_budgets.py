"""Budgets: what was asked for is what comes out, counted by the session itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from test_invariants import PRUNERS, build

from ivcp import pruned
from ivcp.core.budgeted import LARGE, Budgeted
from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner
from ivcp.measure.flops import DecoderSizes, prefill_flops
from ivcp.models import find_family
from ivcp.pruners.fastv import FastV
from ivcp.pruners.none import NoPruning
from ivcp.pruners.pyramiddrop import PyramidDrop
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.pruners.visionzip import VisionZip
from ivcp.testing import batch_of, model_of, single

METHODS = [name for name in PRUNERS if name != "none" and build(name, 0.5).fills_ratio()]
every_method = pytest.mark.parametrize("name", METHODS)


class Counts(NamedTuple):
    """Tokens of a sample: by layer, of the text, and by layer of a first pass."""

    layers: list[int]
    text: int
    first_pass: list[int]

    @property
    def average(self) -> float:
        """Visual tokens that a layer processes."""
        passes = [*self.layers, *self.first_pass]
        return sum(tokens - self.text for tokens in passes) / len(self.layers)


def counts_of(model: Any, pruner: Pruner, inputs: dict[str, Any]) -> list[Counts]:
    """Tokens of each sample."""
    with torch.no_grad(), pruned(model, pruner) as session:
        model(**inputs, use_cache=True)
    return [
        Counts(
            [counts[row] for counts in session.layer_tokens],
            len(layout.text),
            [counts[row] for counts in session.first_pass_tokens],
        )
        for row, layout in enumerate(session.layouts)
    ]


@every_method
def test_a_plan_is_what_happens(name: str) -> None:
    model, batch, pruner = model_of("qwen25vl"), batch_of("qwen25vl"), build(name, 0.3)
    found = counts_of(model, pruner, batch.inputs)
    for (counts, text, first_pass), images in zip(found, batch.tokens, strict=True):
        expected = [text + sum(map(len, images))] * 6
        plans = zip(*(pruner.plan(len(image)) for image in images), strict=True)
        for stage, left in zip(pruner.stages(), plans, strict=False):
            expected[stage.layer :] = [text + sum(left)] * (6 - stage.layer)
        assert counts == expected
        assert first_pass == [text + sum(map(len, images))] * pruner.first_pass()


@every_method
@pytest.mark.parametrize("asked", [{"keep_ratio": 0.6}, {"tokens": 36}])
def test_layer_averages_are_the_nearest_that_can_be_reached(name: str, asked: Any) -> None:
    model, batch, method = model_of("qwen25vl"), batch_of("qwen25vl"), build(name, 0.5)
    number = next(n for n, images in enumerate(batch.tokens) if len(images) == 1)
    (image,) = batch.tokens[number]
    wanted = asked.get("tokens") or asked["keep_ratio"] * len(image)
    budget = Budgeted(method=method, count="layer_average", **asked)
    (counts,) = counts_of(model, budget, single(batch, number))
    averages, remain = [], counts.layers[-1] - counts.text
    for kept in (remain - 1, remain, remain + 1):  # more tokens at the end are more on average
        plain = build(name, min(1, max(1, kept) / len(image)))
        (other,) = counts_of(model, plain, single(batch, number))
        averages.append(other.average)
    assert abs(counts.average - wanted) == min(abs(one - wanted) for one in averages)


@every_method
@pytest.mark.parametrize("row", ["one", "several"])
def test_flops_are_near_the_budget(name: str, row: str) -> None:
    model, batch = model_of("qwen25vl"), batch_of("qwen25vl")
    wanted = 1 if row == "one" else 2
    number = next(n for n, images in enumerate(batch.tokens) if len(images) == wanted)
    sizes = DecoderSizes.of(find_family(model).decoder(model))
    budget = Budgeted(method=build(name, 0.5), keep_ratio=0.7, count="flops")
    ((counts, _, first_pass),) = counts_of(model, budget, single(batch, number))
    whole = prefill_flops([batch.lengths[number]] * 6, sizes)
    token = whole / batch.lengths[number]
    assert abs(prefill_flops(counts, sizes, first_pass) - 0.7 * whole) <= 1.5 * token * wanted


def test_flops_of_a_number_of_tokens_are_those_of_a_prompt_with_so_many() -> None:
    model, batch = model_of("qwen25vl"), batch_of("qwen25vl")
    number = next(n for n, images in enumerate(batch.tokens) if len(images) == 1)
    before = build("visionzip", 0.5)
    budget = Budgeted(method=before, tokens=9, count="flops")
    ((counts, text, _),) = counts_of(model, budget, single(batch, number))
    assert counts == [text + 9] * 6


@every_method
def test_each_image_of_a_batch_keeps_the_tokens_asked_for(name: str) -> None:
    model, batch = model_of("qwen25vl"), batch_of("qwen25vl")
    with torch.no_grad(), pruned(model, Budgeted(method=build(name, 0.5), tokens=9)) as session:
        model(**batch.inputs, use_cache=True)
    for kept, images in zip(session.kept, batch.tokens, strict=True):
        assert [int(torch.isin(kept, image).sum()) for image in images] == [9] * len(images)


def test_a_final_ratio_is_the_plain_method(greedy: Any) -> None:
    model, batch = model_of("qwen25vl"), batch_of("qwen25vl")
    with pruned(model, build("ivcp", 0.4)) as session:
        plain, kept = greedy(model, batch.inputs), session.kept
    with pruned(model, Budgeted(method=build("ivcp", 0.9), keep_ratio=0.4)) as session:
        again = greedy(model, batch.inputs)
    assert torch.equal(plain.sequences, again.sequences)
    assert all(map(torch.equal, kept, session.kept))


def test_published_rows_by_arithmetic() -> None:
    """FastV on LLaVA-1.5: tokens kept so that 192, 128 and 64 are processed on average."""
    for tokens, kept in ((192, 166), (128, 98), (64, 30)):
        budget = Budgeted(method=FastV(layer=2), tokens=tokens, count="layer_average")
        assert abs(round(576 * budget.ratio(576, 32)) - kept) <= 1
    pyramid = Budgeted(method=PyramidDrop(layers=(8, 16, 24)), tokens=270, count="layer_average")
    assert round(576 * pyramid.ratio(576, 32)) == pytest.approx(576 * 0.125, abs=2)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ({"tokens": 4000}, "tokens=4000 were asked for, but an image has [0-9]+ visual tokens"),
        (
            {"tokens": 3, "count": "layer_average"},
            "FastV before layer 2 of 6 lets .* mean over the l",
        ),
        ({"keep_ratio": 0.2, "count": "layer_average"}, "lets 33.3 % of the visual tokens through"),
        (
            {"keep_ratio": 0.2, "count": "flops"},
            "of this prompt's FLOPs, however few tokens remain",
        ),
    ],
)
def test_what_cannot_be_reached_is_one_sentence(budget: dict[str, Any], reason: str) -> None:
    model, batch = model_of("qwen25vl"), batch_of("qwen25vl")
    with (
        pytest.raises(UserError, match=reason),
        pruned(model, Budgeted(method=FastV(layer=2), **budget)),
    ):
        model(**batch.inputs)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (SparseVLM(budget="table"), "SparseVLM has numbers of tokens of its own"),
        (PyramidDrop(ratios=(0.5, 0.25, 0.125)), "PyramidDrop has numbers of tokens of its own"),
    ],
)
def test_methods_with_numbers_of_their_own_take_no_budget(method: Pruner, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Budgeted(method=method, tokens=9)


def test_several_stages_without_a_plan_are_refused() -> None:
    class Unplanned(FastV):
        def stages(self) -> Any:
            return self.stages_before((2, 4), False)

    with pytest.raises(UserError, match="Unplanned does not tell before a run how many tokens"):
        Budgeted(method=Unplanned(), count="layer_average").fitted("", 6)


def test_ratios_of_large_images_are_checked_before_a_run() -> None:
    with pytest.raises(
        UserError, match=r"lets 50.0 % of the visual tokens through.*30 % were asked for"
    ):
        Budgeted(method=FastV(layer=16), keep_ratio=0.3, count="layer_average").fitted("llava", 32)
    assert Budgeted(method=VisionZip(), keep_ratio=0.3, count="layer_average").ratio(LARGE, 32) == (
        pytest.approx(0.3)
    )


def test_no_pruning_takes_no_budget() -> None:
    with pytest.raises(UserError, match="NoPruning"):
        Budgeted(method=NoPruning(), tokens=9).fitted("", 6)
