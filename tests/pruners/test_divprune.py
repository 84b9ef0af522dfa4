"""DivPrune: the release's picks, a plain version of its rule, and tokens that are alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from given import given_view
from test_golden import cases, read
from torch import Tensor

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.pruners import divprune
from ivcp.pruners.divprune import DivPrune, most_diverse
from ivcp.testing import batch_of, model_of, single


def drawn(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def plain(states: Tensor, count: int) -> list[int]:
    """The rule, one distance after the other."""
    tokens = range(len(states))

    def distance(one: int, other: int) -> float:
        return 1 - torch.cosine_similarity(states[one], states[other], 0).item()

    picks = [max(tokens, key=lambda one: min(distance(one, k) for k in tokens if k != one))]
    while len(picks) < count:
        rest = [token for token in tokens if token not in picks]
        picks.append(max(rest, key=lambda one: min(distance(one, pick) for pick in picks)))
    return picks


@pytest.mark.parametrize("folder", cases("divprune"), ids=lambda folder: folder.name)
def test_the_release_picks_the_same_tokens_in_the_same_order(folder: Path) -> None:
    case, golden = read(folder)
    features = golden["features"]
    assert torch.equal(most_diverse(features, case["n_keep"]), golden["selected"])
    view = given_view((1, case["N"]), hidden=features)
    keep = DivPrune(keep_ratio=case["ratio"]).select(view, 0).keep
    assert torch.equal(keep, golden["selected_sorted"])


@pytest.mark.parametrize("rows", [None, 1, 7], ids=["at once", "row by row", "in chunks"])
@pytest.mark.parametrize("grids", [[(5, 6)], [(3, 3), (4, 4), (2, 5)]], ids=["one", "tiles"])
@pytest.mark.parametrize("seed", range(3))
def test_the_plain_rule(
    grids: list[tuple[int, int]], seed: int, rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = sum(height * width for height, width in grids)
    if rows:
        monkeypatch.setattr(divprune, "SCORES", rows * count)
    states = drawn(count, 8, seed)
    for ratio in (0.01, 0.3, 0.9):
        view = given_view(*grids, hidden=states)
        keep = DivPrune(keep_ratio=ratio).select(view, 0).keep
        assert keep.tolist() == sorted(plain(states, max(1, round(ratio * count))))


def test_tokens_that_are_alike_are_kept_last_and_once() -> None:
    """As tiles of one colour: three states, twelve tokens."""
    states = torch.eye(3).repeat(4, 1)
    assert most_diverse(states, 7).tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_token_without_length() -> None:
    states = drawn(9, 4, 0)
    states[4] = 0
    assert sorted(most_diverse(states, 9).tolist()) == list(range(9))


def test_states_of_a_later_layer_can_decide() -> None:
    model, inputs = model_of("llava15"), single(batch_of("llava15"), 1)
    kept = []
    for layer in (0, 3):
        with torch.no_grad(), pruned(model, DivPrune(keep_ratio=0.4, layer=layer)) as session:
            model(**inputs)
        kept.append(session.kept[0])
    assert kept[0].shape == kept[1].shape
    assert not torch.equal(*kept)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"layer": "first"}, "layer must be"), ({"keep_ratio": 0.0}, "keep_ratio must be a number")],
)
def test_bad_input(fields: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=f"^{sentence}"):
        DivPrune(**fields)


@pytest.mark.parametrize("rows", [1, 20])
def test_states_that_are_no_numbers_are_picked_once_at_most(rows: int) -> None:
    states = torch.randn(20, 8)
    states[:rows] = torch.nan
    assert len(most_diverse(states, 10).unique()) == 10
