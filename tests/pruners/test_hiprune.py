"""HiPrune keeps what the release keeps; its neighbours stay within a tile."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from given import given_view
from test_golden import cases, read
from torch import Tensor

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.selection import Selection
from ivcp.core.tower import layer_index
from ivcp.core.view import View
from ivcp.pruners.hiprune import HiPrune
from ivcp.testing import batch_of, model_of, single


def selected(pruner: HiPrune, objects: Tensor, late: Tensor, *grids: tuple[int, int]) -> Selection:
    def attention(layer: float, queries: str) -> Tensor:
        assert queries == "all"
        return late if layer == pruner.tower_layer else objects

    return pruner.select(given_view(*grids, tower_attention=attention), 0)


@pytest.mark.parametrize("folder", cases("hiprune"), ids=lambda folder: folder.name)
def test_equals_the_release(folder: Path) -> None:
    case, golden = read(folder)
    objects, late = golden["object_layer_received"], golden["deep_layer_received"]
    if case["variant"] == "llava":  # one image, [CLS] first
        objects, late, grid = objects[0, 1:], late[0, 1:], tuple(case["grid"])
        ratio, kept = case["retention"] / case["N"], golden["kept_indices"][0]
        shallow = golden["shallow_set_mask"][0].nonzero()[:, 0]
    else:
        grid, ratio, kept = tuple(case["grid_merged"]), case["retention"], golden["kept_indices"]
        shallow = golden["shallow_set"]
    pruner = HiPrune(keep_ratio=ratio, alpha=case["alpha"], wrap=True)
    found = selected(pruner, objects, late, grid)
    assert torch.equal(found.keep, kept)
    anchor, buffer = found.reasons["anchor"], found.reasons["buffer"]
    assert torch.equal(found.keep[anchor], golden["anchors"].flatten().sort().values)
    assert torch.equal(found.keep[anchor | buffer], shallow)
    inside = HiPrune(keep_ratio=ratio, alpha=case["alpha"])
    same = torch.equal(selected(inside, objects, late, grid).keep, kept)
    assert same == (folder.name == "i01_t64_a01"), "an anchor lies on a border in the others"


def plain(
    objects: Tensor, late: Tensor, target: int, alpha: float, grids: list[tuple[int, int]]
) -> list[int]:
    """The method with sets and loops; a token is a grid, a row and a column."""
    places = [
        (grid, row, column)
        for grid, (rows, columns) in enumerate(grids)
        for row in range(rows)
        for column in range(columns)
    ]
    by_place = {place: token for token, place in enumerate(places)}
    best = sorted(range(len(places)), key=lambda token: -objects[token].item())
    anchors = best[: round(alpha * target / 5)]
    around = set()
    for token in anchors:
        grid, row, column = places[token]
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            around.add(by_place.get((grid, row + down, column + right)))
    around -= {None, *anchors}
    turns = [anchors, around, set(range(len(places))) - around - set(anchors)]
    order = [t for turn in turns for t in sorted(turn, key=lambda token: (-late[token], token))]
    return sorted(order[:target])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("grids", [[(5, 7)], [(3, 4), (6, 5), (1, 3)]], ids=["one", "tiles"])
def test_equals_a_plain_version(alpha: float, grids: list[tuple[int, int]]) -> None:
    """A share of 1 has budgets that anchors and neighbours exceed: 8 tokens are two anchors' 10."""
    count = sum(rows * columns for rows, columns in grids)
    for seed in range(4):
        random = torch.Generator().manual_seed(seed)
        objects, late = torch.rand(2, count, generator=random)
        for target in (1, 3, 8, 20, 30, count - 1):
            pruner = HiPrune(keep_ratio=target / count, alpha=alpha)
            found = selected(pruner, objects, late, *grids).keep.tolist()
            assert len(found) == target
            assert found == plain(objects, late, target, alpha, grids)


def test_auto_is_the_release_s_layer_of_clip_and_the_same_part_of_other_towers() -> None:
    layers = HiPrune().tower_layers()
    assert [layer_index(layer, 24) for layer in layers] == [8, 22]
    assert [layer_index(layer, 3) for layer in layers] == [1, 1]


def test_layers_are_those_of_the_tower() -> None:
    read = []

    class Spy(HiPrune):
        def select(self, view: View, stage: int) -> Selection:
            first, *others = (view.tower_attention(n, "all") for n in (*self.tower_layers(), 1, -2))
            read.extend([torch.equal(first, other) for other in others])
            return super().select(view, stage)

    model, inputs = model_of("llava15"), single(batch_of("llava15"), 0)
    with torch.no_grad(), pruned(model, Spy(keep_ratio=0.5)):  # a tower of 2 layers
        model(**inputs)
    assert read[:3] == [False, True, False]


def test_a_share_beyond_the_budget_is_refused() -> None:
    with pytest.raises(UserError, match=r"^alpha must lie in \[0, 1\]; got 1.5\.$"):
        HiPrune(alpha=1.5)


def test_a_word_that_is_no_layer_is_refused() -> None:
    with pytest.raises(UserError, match=r"^object_layer must be a whole number or auto; got "):
        HiPrune(object_layer="middle")
