"""CDPruner: the release's picks, determinants written out, and relevance from both sources."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from given import given_view
from small_clip import QUESTION, SmallClip
from test_golden import cases, read
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.view import Signal
from ivcp.models.clip_text import ClipFamily
from ivcp.models.llava15 import Llava15
from ivcp.pruners.cdpruner import CDPruner, largest_volume, scaled
from ivcp.pruners.compose import Compose
from ivcp.pruners.fastv import FastV
from ivcp.pruners.plus_ivc import PlusIVC
from ivcp.testing import SMALL, batch_of, model_of, prompts, single


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain(states: Tensor, relevance: Tensor, count: int) -> list[int]:
    """Each pick maximises the determinant of the kernel of all picks, in float64."""
    relevance, states = relevance.double(), states.double()
    weights = (relevance - relevance.min() + 1e-6) / (relevance.max() - relevance.min())
    unit = states / states.norm(dim=-1, keepdim=True)
    kernel = weights[:, None] * (unit @ unit.T) * weights
    picks: list[int] = []
    for _ in range(count):
        rest = [token for token in range(len(states)) if token not in picks]
        volumes = [kernel[[*picks, one]][:, [*picks, one]].logdet().item() for one in rest]
        picks.append(rest[volumes.index(max(volumes))])
    return picks


def test_a_near_duplicate_is_worth_what_it_adds() -> None:
    """However relevant it is; tokens that add nothing but rounding come last, by relevance."""
    alike = normalize(drawn(1, 64) + 0.002 * drawn(30, 64, seed=1), dim=-1)
    apart = normalize(drawn(30, 64, seed=2), dim=-1)
    relevance = torch.cat([torch.linspace(0.9, 1, 30), torch.linspace(0.002, 0.02, 30)])
    states = torch.cat([alike, apart])
    found = largest_volume(states, scaled(relevance), 20).tolist()
    assert found == plain(states, relevance, 20)
    assert sum(token < 30 for token in found) < 3
    narrow = normalize(drawn(200, 8, seed=3), dim=-1)
    weights = scaled(torch.rand(200, generator=torch.Generator().manual_seed(4)))
    order = largest_volume(narrow, weights, 150).tolist()
    behind = [
        token for token in weights.argsort(descending=True).tolist() if token not in order[:8]
    ]
    assert order[8:] == behind[:142]


@pytest.mark.parametrize("rows", [1, 20])
def test_states_that_are_no_numbers_are_picked_once_at_most(rows: int) -> None:
    states = drawn(20, 8)
    states[:rows] = torch.nan
    order = largest_volume(normalize(states, dim=-1), torch.full((20,), torch.nan), 10)
    assert len(order.unique()) == 10


@pytest.mark.parametrize("folder", cases("cdpruner"), ids=lambda folder: folder.name)
def test_the_release_picks_the_same_tokens(folder: Path) -> None:
    case, golden = read(folder)
    features = golden["image_features"][0]
    cosine = cosine_similarity(golden["image_embeds"][0][:, None], golden["text_embeds"], dim=-1)
    relevance = scaled(-cosine.mean(-1))
    torch.testing.assert_close(relevance, golden["relevance"][0], atol=1e-5, rtol=0)
    order = largest_volume(normalize(features, dim=-1), relevance, case["T"])
    assert torch.equal(order, golden["selection_order"][0])
    view = given_view((1, case["N"]), hidden=features, text_relevance=cosine.mean(-1))
    pruner = CDPruner(keep_ratio=case["T"] / case["N"], relevance="encoder")
    assert torch.equal(pruner.select(view, 0).keep, golden["index_mask"][0].nonzero()[:, 0])


@pytest.mark.parametrize("source", ["encoder", "embeddings"])
@pytest.mark.parametrize("grids", [[(5, 6)], [(3, 3), (4, 4), (2, 5)]], ids=["one", "tiles"])
@pytest.mark.parametrize("seed", range(3))
def test_the_plain_rule(grids: list[tuple[int, int]], seed: int, source: Any) -> None:
    count = sum(rows * columns for rows, columns in grids)
    states, text = drawn(count, 40, seed=seed), drawn(7, 40, seed=seed + 10)
    cosine = drawn(count, seed=seed + 20)
    view = given_view(*grids, hidden=states, text_embeddings=text, text_relevance=cosine)
    for ratio in (0.01, 0.3, 0.6):
        for invert in (True, False, "auto"):
            pruner = CDPruner(keep_ratio=ratio, relevance=source, invert=invert)
            relevance = cosine
            if source == "embeddings":
                pairs = [cosine_similarity(states, one[None], dim=-1) for one in text]
                relevance = torch.stack(pairs).mean(0)
            if invert is True or (invert == "auto" and source == "encoder"):
                relevance = -relevance
            expected = plain(states, relevance, max(1, round(ratio * count)))
            assert pruner.select(view, 0).keep.tolist() == sorted(expected)


def test_the_most_relevant_follow_once_the_span_is_full() -> None:
    """Three directions among twelve tokens: one token of each, then by relevance."""
    states = torch.eye(3).repeat(4, 1)
    weights = torch.linspace(0.1, 1, 12)
    assert largest_volume(states, weights, 12).tolist() == [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    weights[9:] = torch.tensor([0.01, 0.02, 0.03])
    order = largest_volume(states, weights, 12).tolist()
    assert order == [8, 7, 6, 5, 4, 3, 2, 1, 0, 11, 10, 9]


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_more_picks_than_the_states_have_directions(rank: int) -> None:
    states = drawn(400, rank) @ drawn(rank, 32, seed=1)
    relevance = drawn(400, seed=2)
    order = largest_volume(normalize(states, dim=-1), scaled(relevance), 400).tolist()
    assert sorted(order) == list(range(400))
    assert order[:rank] == plain(states, relevance, rank)
    behind = relevance[order[rank:]]
    assert all(one >= other for one, other in pairwise(behind))


def test_equal_relevance_is_one() -> None:
    assert torch.equal(scaled(torch.full((5,), 0.3)), torch.ones(5))


def test_auto_is_what_the_model_has() -> None:
    encoder: frozenset[Signal] = frozenset(
        {"text_encoder", "question", "hidden", "text_embeddings"}
    )
    given = CDPruner()
    assert given.fitted("", 6, encoder).relevance == "encoder"
    assert given.fitted("", 6, encoder - {"text_encoder"}).relevance == "embeddings"
    assert CDPruner(relevance="embeddings").fitted("", 6, encoder).relevance == "embeddings"
    wrapped = PlusIVC(base=given).fitted("", 6, encoder)
    assert wrapped.base.relevance == "encoder"
    both = Compose(parts=(given, FastV())).fitted("", 6, encoder)
    assert both.parts[0].relevance == "encoder"
    with pytest.raises(UserError, match=r"^The relevance of CDPruner is still open"):
        given.stages()


WITH_ENCODER = [name for name, small in SMALL.items() if issubclass(small.family, ClipFamily)]


@pytest.mark.parametrize("family", WITH_ENCODER)
def test_auto_reads_the_question_where_there_is_an_encoder(family: str) -> None:
    sentence = r"^CDPruner reads the question: set session\.questions"
    model = model_of(family)
    with pruned(model, CDPruner()), pytest.raises(UserError, match=sentence):
        model(**single(batch_of(family), 1))


@pytest.mark.parametrize("invert", [True, False])
def test_a_whole_model_with_its_text_encoder(tmp_path: Path, invert: bool) -> None:
    clip = SmallClip.save(tmp_path)
    model = SMALL["llava15"].model()
    model.model.vision_tower.load_state_dict(clip.model.vision_model.state_dict())
    inputs = prompts([5, (6, 6), 7], [4, (6, 6), 9], family="llava15").inputs
    family = Llava15(text_tower=str(tmp_path))
    pruner = CDPruner(keep_ratio=0.3, invert=invert)
    with torch.no_grad(), pruned(model, pruner, family=family) as session:
        session.questions = [QUESTION] * 2
        model(**inputs)
        features = model.get_image_features(inputs["pixel_values"])
    features = getattr(
        features, "pooler_output", features
    )  # of older versions, the states themselves
    relevance = clip.relevance(inputs["pixel_values"]) * (-1 if invert else 1)
    for kept, layout, states, weights in zip(
        session.kept, session.layouts, features, relevance, strict=True
    ):
        expected = sorted(plain(states, weights, round(0.3 * 36)))
        assert (kept - layout.images[0].start).tolist() == expected


def test_bad_input() -> None:
    with pytest.raises(UserError, match=r"^relevance must be"):
        CDPruner(relevance="clip")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"needs the signal text_encoder, but"):
        pruned(model_of("qwen25vl"), CDPruner(relevance="encoder")).__enter__()
