"""IVC-Prune and its halves on what another method has left of an image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from given import given_view

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.pruner import LayerPruner
from ivcp.pruners.compose import Compose
from ivcp.pruners.divprune import DivPrune
from ivcp.pruners.foreground import ForegroundOnly
from ivcp.pruners.ivc import IVCOnly
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.random import RandomPruning
from ivcp.pruners.visionzip import VisionZip
from ivcp.testing import batch_of, model_of

every_method = pytest.mark.parametrize(
    "kind", [IVCPrune, ForegroundOnly, IVCOnly], ids=lambda kind: kind.__name__
)


@every_method
@pytest.mark.parametrize("target", [40, 12, 1])
def test_what_is_left_is_chosen_from_as_from_an_image(kind: type[LayerPruner], target: int) -> None:
    """A ratio counts from the complete image: the budget is that of the smaller image, too."""
    torch.manual_seed(target)
    index = torch.randperm(100)[:60].sort().values
    positions, visual = torch.randint(0, 400, (3, 60)), torch.randn(2, 60, 8)
    signals = {
        "positions": positions, "inverse_frequencies": 100.0 ** -torch.linspace(0, 1, 8),
        "values": (torch.randn(2, 7, 8), visual),
    }  # fmt: skip
    left = given_view((10, 10), **signals)
    left.index = index
    alone = given_view((6, 10), **signals)
    found = kind(keep_ratio=target / 100).select(left, 0)
    expected = kind(keep_ratio=target / 60).select(alone, 0)
    assert len(found.keep) == target
    assert torch.equal(found.keep, expected.keep)
    for word in expected.reasons or {}:
        assert torch.equal(found.reasons[word], expected.reasons[word])


@every_method
@pytest.mark.parametrize("family", ["qwen25vl", "llava15"])
def test_it_follows_visionzip(kind: type[LayerPruner], family: str, greedy: Any) -> None:
    model, batch = model_of(family), batch_of(family)
    both = Compose(parts=(VisionZip(), kind(layer=3)), keep_ratio=0.25)
    with pruned(model, both) as session:
        greedy(model, batch.inputs)
    for number, images in enumerate(batch.tokens):
        counts = [row[number] for row in session.layer_tokens]
        for ratio, layers in ((0.5, counts[:3]), (0.25, counts[3:])):
            kept = sum(max(1, round(ratio * len(image))) for image in images)
            text = batch.lengths[number] - sum(map(len, images))
            assert set(layers) == {text + kept}


@every_method
def test_tiles_that_another_method_has_pruned_are_refused(kind: type[LayerPruner]) -> None:
    model, batch = model_of("internvl"), batch_of("internvl")
    both = Compose(parts=(VisionZip(), kind(layer=3)), keep_ratio=0.25)
    with (
        pytest.raises(UserError, match="only be pruned by this method while it is complete"),
        pruned(model, both),
    ):
        model(**batch.inputs)


def test_divprune_and_then_random_tokens(greedy: Any) -> None:
    model, batch = model_of("qwen25vl"), batch_of("qwen25vl")
    both = Compose(parts=(DivPrune(), RandomPruning(layer=4)), keep_ratio=0.25)
    with pruned(model, both) as session:
        greedy(model, batch.inputs)
    for kept, images in zip(session.kept, batch.tokens, strict=True):
        assert len(kept) == sum(max(1, round(0.25 * len(image))) for image in images)


@pytest.mark.parametrize("parts", [(DivPrune(), VisionZip()), (RandomPruning(layer=3), DivPrune())])
def test_stages_that_do_not_ascend_are_one_sentence(parts: tuple[Any, Any]) -> None:
    with (
        pytest.raises(UserError, match="they must ascend, one stage a layer"),
        pruned(model_of("qwen25vl"), Compose(parts=parts)),
    ):
        pass
