"""PruMerge merges what the release merges, and fills a budget exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from given import given_view
from test_golden import cases, read
from torch import Tensor

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.selection import Selection
from ivcp.engine.tower_signals import TowerSignals
from ivcp.pruners import prumerge
from ivcp.pruners.prumerge import PruMerge
from ivcp.testing import batch_of, model_of

PLAIN, PLUS = cases("prumerge"), cases("prumerge_plus")
HEADS = 4
close = {"atol": 1e-4, "rtol": 0}
named = {"ids": lambda folder: folder.name}


def view_of(attention: Tensor, keys: Tensor, features: Tensor, *grids: tuple[int, int]) -> Any:
    def joined(layer: int, heads: str) -> Tensor:
        assert (layer, heads) == (-1, "joined")
        return attention

    by_head = keys.unflatten(-1, (HEADS, -1)).transpose(0, 1)
    return given_view(
        *grids, tower_attention=joined, tower_keys=by_head, tower_features=features,
        project=lambda merged: merged,
    )  # fmt: skip


def recorded(folder: Path, number: int) -> tuple[Any, list[int], Tensor, Tensor]:
    """The view of an image, the recorded centres, and their and the extra token's features."""
    case, golden = read(folder)
    view = view_of(
        golden["cls_attention"][number], golden["keys"][number, 1:],
        golden["hidden_states"][number, 1:], tuple(case["grid"]),
    )  # fmt: skip
    output = golden["output"][number]
    return view, golden["centre_indices"][number].tolist(), output[:-1], output[-1]


@pytest.mark.parametrize("folder", PLAIN, **named)
def test_equals_the_release(folder: Path) -> None:
    case, _ = read(folder)
    for number in range(case["B"]):
        view, centers, merged, extra = recorded(folder, number)
        ratio = (case["top_count"][number] + 1) / case["N"]
        found = PruMerge(keep_ratio=ratio, adaptive=case["adaptive"]).select(view, 0)
        assert found.keep.tolist() == sorted(centers)
        order = torch.tensor(centers).argsort()
        torch.testing.assert_close(found.states, merged[order], **close)
        torch.testing.assert_close(found.merged_states[0], extra, **close)
        attention = view.tower_attention(-1, heads="joined").clone()
        attention[found.keep] = 0
        assert found.merged_at.tolist() == [attention.argmax().item()]


def test_plus_equals_the_release_but_for_the_last_token() -> None:
    """The release samples up to, but not including, the literal 575, the last token."""
    (folder,) = (folder for folder in PLUS if folder.name.endswith("_adaptive"))
    view, centers, merged, extra = recorded(folder, 0)
    attention, features = view.tower_attention(-1, heads="joined"), view.tower_features()
    found = PruMerge(plus=True, adaptive=True).select(view, 0)
    assert found.keep.tolist() == [*sorted(centers), 575]
    order = torch.tensor(centers).argsort()
    torch.testing.assert_close(found.states[:-1], merged[order], **close)
    torch.testing.assert_close(
        found.merged_states[0] + attention[575] * features[575], extra, **close
    )
    assert found.reasons["spread"].sum() == 141 - 38 + 1


def test_the_best_centres_of_a_fixed_plus_are_those_of_the_release() -> None:
    """It spreads the others by a step and takes some twice.

    Tokens that it has twice, and those that it loses for them, change the centres that they are
    near to: the others are compared.
    """
    (folder,) = (folder for folder in PLUS if folder.name.endswith("_fixed8"))
    view, centers, merged, _ = recorded(folder, 0)
    found = PruMerge(keep_ratio=145 / 576, plus=True).select(view, 0)
    assert len(found.keep) == len(set(found.keep.tolist())) == 144
    assert sorted(centers[:72]) == found.keep[~found.reasons["spread"]].tolist()
    there = {*centers, *read(folder)[1]["complement_indices"][0].tolist()}
    wrong = {token for token in centers if centers.count(token) > 1} | (set(range(576)) - there)
    keys = torch.nn.functional.normalize(view.tower_keys().transpose(0, 1).flatten(1), dim=-1)
    near = (keys @ keys.T).topk(33).indices.tolist()  # the token itself is one of them
    same = [token for token in found.keep.tolist() if token in centers]
    same = [token for token in same if not wrong & set(near[token])]
    assert len(same) > 10
    released = torch.stack([merged[centers.index(token)] for token in same])
    states = found.states[torch.isin(found.keep, torch.tensor(same))]
    torch.testing.assert_close(states, released, **close)


@pytest.mark.parametrize("folder", [*PLAIN, *PLUS], **named)
def test_the_attention_of_joined_heads_is_the_release_s(folder: Path) -> None:
    case, golden = read(folder)

    class Tower:
        has_cls, blocks = True, (None,)

        def segments(self, block: int, call: Any) -> list[int]:
            return [case["N"] + 1]

        def scale(self, block: Any) -> float:
            return (case["C"] / HEADS) ** -0.5

        def keys(self, block: Any, hidden: Tensor, rows: slice, context: Any) -> Tensor:
            return hidden[rows].unflatten(-1, (HEADS, -1)).transpose(0, 1)

        def queries(self, block: Any, hidden: Tensor, rows: slice, context: Any) -> Tensor:
            return context["q"].unflatten(-1, (HEADS, -1)).transpose(0, 1)

    for number in range(case["B"]):
        keys, query = golden["keys"][number], golden["q_cls"][number][None]
        signals = TowerSignals(Tower(), {}, {0: (keys, {"q": query})}, keys)
        found = signals.attention(0, "cls", "joined")[1:]
        torch.testing.assert_close(found, golden["cls_attention"][number], atol=1e-7, rtol=1e-5)


def plain(
    attention: Tensor, keys: Tensor, features: Tensor, target: int, plus: bool, near: int
) -> tuple[list[int], list[Tensor], Tensor | None]:
    """The method with lists and loops: centres, their features, and the extra token."""
    tokens = range(len(attention))
    count = target - (target > 1)
    order = sorted(tokens, key=lambda token: -attention[token].item())
    spread = count // 2 if plus else 0
    centers = order[: count - spread]
    rest = sorted(set(tokens) - set(centers))
    centers = sorted([*centers, *(rest[place * len(rest) // spread] for place in range(spread))])
    unit, merged = torch.nn.functional.normalize(keys.double(), dim=-1), []
    for center in centers:
        others = [token for token in tokens if token != center]
        others.sort(key=lambda token: -float(unit[token] @ unit[center]))
        merged.append(
            features[center] + sum(attention[token] * features[token] for token in others[:near])
        )
    rest = set(tokens) - set(centers)
    extra = sum(attention[token] * features[token] for token in rest) if target > 1 else None
    return centers, merged, extra


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("grids", [[(5, 7)], [(3, 4), (5, 4), (2, 2)]], ids=["one", "tiles"])
@pytest.mark.parametrize("held", [prumerge.SIMILARITIES, 100], ids=["at once", "by chunks"])
def test_equals_a_plain_version(
    plus: bool, grids: list[tuple[int, int]], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prumerge, "SIMILARITIES", held)
    count = sum(rows * columns for rows, columns in grids)
    for seed in range(2):
        random = torch.Generator().manual_seed(seed)
        attention = torch.rand(count, generator=random)
        keys = torch.randn(count, 16, generator=random)
        features = torch.randn(count, 8, generator=random)
        for target in (1, 2, 3, 10, count - 1):
            for near in (5, 32, 100):
                pruner = PruMerge(keep_ratio=target / count, plus=plus, neighbours=near)
                found = pruner.select(view_of(attention, keys, features, *grids), 0)
                expected = plain(attention, keys, features, target, plus, near)
                assert len(found) == target
                assert found.keep.tolist() == expected[0]
                torch.testing.assert_close(found.states, torch.stack(expected[1]), **close)
                if target > 1:
                    torch.testing.assert_close(found.merged_states[0], expected[2], **close)


@pytest.mark.parametrize("plus", [False, True])
def test_attention_without_outliers_leaves_a_centre(plus: bool) -> None:
    """Where the release keeps no centre, or divides by zero."""
    keys, features = torch.randn(2, 36, 8).unbind()
    view = view_of(torch.full((36,), 1 / 36), keys, features, (6, 6))
    found = PruMerge(adaptive=True, plus=plus).select(view, 0)
    assert found.keep.tolist() == ([0, 12, 24] if plus else [0])
    assert len(found.merged_at) == 1


def test_without_neighbours_nothing_is_merged() -> None:
    attention, (keys, features) = torch.rand(36), torch.randn(2, 36, 8).unbind()
    pruner = PruMerge(keep_ratio=0.25, neighbours=0)
    found = pruner.select(view_of(attention, keys, features, (6, 6)), 0)
    assert found.keep.tolist() == attention.topk(9).indices.sort().values.tolist()
    assert found.states is found.merged_at is None


@pytest.mark.parametrize("family", ["llava15", "qwen25vl", "internvl"])
@pytest.mark.parametrize("plus", [False, True])
def test_adaptive_counts_are_those_of_each_image(family: str, plus: bool, greedy: Any) -> None:
    counts: list[tuple[int, int, int]] = []

    class Spy(PruMerge):
        def select(self, view: Any, stage: int) -> Selection:
            attention = view.tower_attention(-1, heads="joined").tolist()
            q = torch.tensor(attention).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
            above = sum(value > q[2] + 1.5 * (q[2] - q[0]) for value in attention)
            found = super().select(view, stage)
            counts.append((max(1, above), len(found), len(attention)))
            return found

    model, batch = model_of(family), batch_of(family)
    pruner = Spy(adaptive=True, plus=plus)
    assert not pruner.fills_ratio()
    with pruned(model, pruner) as session:
        greedy(model, batch.inputs)
    for above, found, size in counts:
        assert found > above + 1 if plus and above < size / 4 else found >= above + 1
    assert sum(len(kept) for kept in session.kept) == sum(found for _, found, _ in counts)


def test_fewer_than_no_neighbours_are_refused() -> None:
    with pytest.raises(UserError, match=r"^neighbours must be at least 0; got -1\.$"):
        PruMerge(neighbours=-1)
