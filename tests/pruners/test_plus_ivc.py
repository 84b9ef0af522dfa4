from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from families import LlamaWindow, small_llama

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.pruner import Pruner
from ivcp.core.selection import budget
from ivcp.engine.session import Session
from ivcp.pruners.farthest import FarthestPoint
from ivcp.pruners.fastv import FastV
from ivcp.pruners.foreground import ForegroundOnly
from ivcp.pruners.ivc import IVCOnly
from ivcp.pruners.none import NoPruning
from ivcp.pruners.plus_ivc import PlusIVC
from ivcp.pruners.random import RandomPruning
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.pruners.uniform import UniformGrid

ONE = ImageLayout((Grid(3, 8, 10),))
TILES = ImageLayout((Grid(3, 6, 6, "tile"), Grid(39, 6, 6, "tile"), Grid(75, 4, 4, "thumbnail")))
BASES = [
    FastV(layer=2, prune_earlier_kv=True),
    ForegroundOnly(layer=2),
    RandomPruning(layer=2),
    UniformGrid(layer=2),
]


def prefill(pruner: Pruner, image: ImageLayout = ONE) -> tuple[list[int], list[str], Session]:
    """Kept tokens as indices into the image, their roles, and the session."""
    model = small_llama(layers=6)
    prompt = torch.randn(1, image.stop + 6, 32)
    with torch.no_grad(), pruned(model, pruner, family=LlamaWindow(image)) as session:
        model(inputs_embeds=prompt, use_cache=True)
    kept = torch.searchsorted(image.tokens, session.kept[0])
    return kept.tolist(), session.reasons[0], session


def by_turns(image: ImageLayout) -> list[list[int]]:
    """Tokens of each grid from the best IVC token to the worst, one place of both lists a turn."""
    theta = [10000 ** (-j / 4) for j in range(4)]
    orders = []
    for first, count in image.spans:
        own = range(first, first + count)
        angles = {n: [float(image.tokens[n]) * t for t in theta] for n in own}
        lists = [
            sorted(own, key=lambda n: -sum(wave(torch.tensor(a)).item() for a in angles[n]))
            for wave in (torch.cos, torch.sin)
        ]
        orders.append(list(dict.fromkeys(n for pair in zip(*lists, strict=True) for n in pair)))
    return orders


@pytest.mark.parametrize("image", [ONE, TILES], ids=["one grid", "tiles"])
@pytest.mark.parametrize("base", BASES, ids=lambda base: type(base).__name__)
def test_the_base_spends_its_part_and_ivc_tokens_the_rest(base: Pruner, image: ImageLayout) -> None:
    kept, roles, _ = prefill(PlusIVC(base=base, keep_ratio=0.5, share=0.4), image)
    alone, _, _ = prefill(replace(base, keep_ratio=0.3), image)
    assert len(kept) == budget(0.5, image.length)
    assert set(alone) <= set(kept)
    added = {token for token, role in zip(kept, roles, strict=True) if role == "ivc"}
    assert added == set(kept) - set(alone)


@pytest.mark.parametrize("base", BASES, ids=lambda base: type(base).__name__)
def test_the_best_free_ivc_tokens_are_added(base: Pruner) -> None:
    kept, _, _ = prefill(PlusIVC(base=base, keep_ratio=0.5, share=0.4))
    alone, _, _ = prefill(replace(base, keep_ratio=0.3))
    free = [token for token in by_turns(ONE)[0] if token not in alone]
    assert set(kept) == set(alone) | set(free[: 40 - len(alone)])


@pytest.mark.parametrize("image", [ONE, TILES], ids=["one grid", "tiles"])
def test_spread_tokens_are_taken_in_their_order(image: ImageLayout) -> None:
    pruner = PlusIVC(base=RandomPruning(layer=2), keep_ratio=0.3, share=0.9, added="farthest")
    kept, _, _ = prefill(pruner, image)
    alone, _, _ = prefill(replace(pruner.base, keep_ratio=0.3 * (1 - 0.9)), image)
    spread, _, _ = prefill(FarthestPoint(keep_ratio=0.25, layer=2), image)
    assert len(kept) == budget(0.3, image.length)
    assert len(set(spread) - set(kept)) <= 2  # of several parts, one token of each may be another
    assert set(alone) <= set(kept)


def test_one_inside_another_adds_its_own_tokens() -> None:
    inner = PlusIVC(base=ForegroundOnly(layer=2), added="random", share=0.5)
    kept, _, _ = prefill(PlusIVC(base=inner, keep_ratio=0.5, share=0.4))
    alone, _, _ = prefill(replace(inner, keep_ratio=0.3))
    assert set(alone) <= set(kept)


def test_another_base_or_offset_adds_other_tokens() -> None:
    base = ForegroundOnly(layer=2)
    found = [
        set(prefill(PlusIVC(base=base, keep_ratio=0.3, **changes))[0])
        for changes in ({}, {"rope_base": 100.0}, {"offset": 40})
    ]
    alone = set(prefill(replace(base, keep_ratio=0.18))[0])
    assert all(len(tokens) == 24 and alone <= tokens for tokens in found)
    assert len({frozenset(tokens) for tokens in found}) == 3


@pytest.mark.parametrize("base", BASES, ids=lambda base: type(base).__name__)
def test_random_tokens_take_the_place_of_ivc_tokens(base: Pruner) -> None:
    pruner = PlusIVC(base=base, keep_ratio=0.5, share=0.4, added="random")
    kept, roles, _ = prefill(pruner)
    alone, _, _ = prefill(replace(base, keep_ratio=0.3))
    with_ivc, _, _ = prefill(replace(pruner, added="ivc"))
    assert set(alone) <= set(kept)
    assert len(kept) == 40
    assert "ivc" not in roles
    assert 3 < len(set(kept) - set(with_ivc)) < 16  # 16 of 56 are added; chance has 11 others


def test_random_tokens_of_an_early_stage_stay_to_the_end() -> None:
    base = SparseVLM(keep_ratio=0.3, layers=(1, 3, 5), recycle=False)
    pruner = PlusIVC(base=base, keep_ratio=0.3, added="random")
    first = PlusIVC(base=replace(base, layers=(1,)), keep_ratio=0.3, added="random")
    late, early = set(prefill(pruner)[0]), set(prefill(first)[0])
    assert len(late & early) >= 8  # the eight best of the random order are among both


def test_every_grid_gives_the_same_part() -> None:
    kept, _, _ = prefill(PlusIVC(base=IVCOnly(layer=2), keep_ratio=0.5), TILES)
    shares = [sum(first <= n < first + count for n in kept) / count for first, count in TILES.spans]
    assert max(shares) - min(shares) < 0.1


@pytest.mark.parametrize(
    "base", [*BASES, SparseVLM(layers=(2, 4))], ids=lambda base: type(base).__name__
)
def test_without_a_share_it_is_the_base(base: Pruner) -> None:
    kept, _, _ = prefill(PlusIVC(base=base, keep_ratio=0.4, share=0))
    assert kept == prefill(replace(base, keep_ratio=0.4))[0]
    assert len(kept) == budget(0.4, 80)


@pytest.mark.parametrize("recycle", [True, False])
def test_a_base_of_several_stages_keeps_its_budget_at_each(recycle: bool) -> None:
    base = SparseVLM(keep_ratio=0.3, layers=(1, 3, 5), recycle=recycle)
    _, _, alone = prefill(base)
    _, roles, session = prefill(PlusIVC(base=base, keep_ratio=0.3))
    assert session.layer_tokens == alone.layer_tokens
    assert len(roles) == budget(0.3, 80)
    assert roles.count("ivc") >= 8
    assert ("merged" in roles) == recycle


def test_ivc_tokens_of_an_early_stage_stay_to_the_end() -> None:
    base = SparseVLM(keep_ratio=0.3, layers=(1, 3, 5), recycle=False)
    kept, _, _ = prefill(PlusIVC(base=base, keep_ratio=0.3))
    assert set(by_turns(ONE)[0][:8]) <= set(kept)


def test_signals_stages_and_numbering_are_the_base_s() -> None:
    pruner = PlusIVC(base=SparseVLM(layers=(2, 4), renumber=True))
    wanted = {"embeddings", "text_embeddings", "hidden", "attention", "positions"}
    assert all(stage.needs == wanted for stage in pruner.stages())
    assert [stage.layer for stage in pruner.stages()] == [2, 4]
    assert pruner.renumbers()
    (stage,) = PlusIVC(base=RandomPruning(layer=3)).stages()
    assert stage.needs == {"positions", "hidden"}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"base": NoPruning()}, "base must be a method that prunes"),
        ({"base": "fastv"}, "base must be a method that prunes.* got 'fastv'"),
        ({"base": SparseVLM(budget="table")}, "prunes to a ratio.*budget='table'"),
        ({"base": FastV(), "share": 1}, r"share must lie in \[0, 1\); got 1"),
        (
            {"base": FastV(), "added": "uniform"},
            "added must be ivc or random or farthest; got 'un",
        ),
        ({"base": FastV(), "rope_base": 1.0}, "rope_base must be a number above 1"),
        ({"base": FastV(), "added": "random", "offset": 3}, "offset are about IVC tokens"),
        ({"base": FastV(), "keep_ratio": 0}, "keep_ratio must be a number"),
    ],
)
def test_a_mistake_is_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        PlusIVC(**fields)
