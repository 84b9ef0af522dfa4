"""Budgets of each frame of a video, and of all images of a sample together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from expected import EXPECTED
from test_invariants import PRUNERS, build
from test_video import FAMILIES, frames_of, video_prompt
from torch import Tensor

from ivcp import pruned
from ivcp.core.budgeted import Budgeted
from ivcp.core.errors import UserError
from ivcp.core.pruner import ScorePruner
from ivcp.core.view import View
from ivcp.pruners.evs import EVS
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.pruners.vidcom2 import VidCom2
from ivcp.testing import SMALL, batch_of, model_of, single

METHODS = [name for name in PRUNERS if name != "none"]
every_method = pytest.mark.parametrize("name", METHODS)
every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
@every_method
def test_each_frame_keeps_its_budget(family: str, name: str, greedy: Any) -> None:
    model = model_of(family)
    has_image = not EXPECTED[family].videos_alone
    inputs, parts = video_prompt(family, image=has_image)
    with pruned(model, build(name, 0.4, family), budget_over="frame") as session:
        greedy(model, inputs, 2)
    (kept,) = session.kept
    budgets = holders(parts, session)
    assert len(budgets) == has_image + sum(frames_of(family))
    for tokens in budgets:
        assert torch.isin(kept, tokens).sum() == round(0.4 * len(tokens))
    assert len(session.reasons[0]) == len(kept)
    text = inputs["input_ids"].shape[1] - sum(map(len, parts))
    assert session.layer_tokens[-1][0] == text + len(kept)


def holders(parts: list[Tensor], session: Any) -> list[Tensor]:
    """Prompt indices of what has a budget of its own: an image, then the frames of videos."""
    assert [image.tokens.tolist() for image in session.layouts[0].images] == [
        part.tolist() for part in parts
    ]
    return [
        image.tokens[start : start + count]
        for image in session.layouts[0].images
        for start, count in image.frames
    ]


@every_family
@every_method
def test_all_videos_of_a_sample_share_a_budget(family: str, name: str, greedy: Any) -> None:
    model = model_of(family)
    inputs, videos = video_prompt(family)
    with pruned(model, build(name, 0.35, family), budget_over="sample") as session:
        greedy(model, inputs, 2)
    kept = [int(torch.isin(session.kept[0], tokens).sum()) for tokens in videos]
    assert sum(kept) == len(session.kept[0]) == round(0.35 * sum(map(len, videos)))
    assert min(kept) > 0


@pytest.mark.parametrize("family", SMALL)
@every_method
def test_all_images_of_a_sample_share_a_budget(family: str, name: str, greedy: Any) -> None:
    model, batch = model_of(family), batch_of(family)
    images = batch.tokens[1]
    sizes = [layout.length for layout in layouts_of(family).images]
    pruner = build(name, 0.4, family)
    if isinstance(pruner, VidCom2 | EVS) and len(frame_sizes(family)) > 1:
        with (
            pytest.raises(UserError, match="all have the same number of tokens"),
            pruned(model, pruner, budget_over="sample"),
        ):
            greedy(model, single(batch, 1), 1)
        return
    with pruned(model, pruner, budget_over="sample") as session:
        greedy(model, single(batch, 1), 2)
    kept = [int(torch.isin(session.kept[0], tokens).sum()) for tokens in images]
    assert sum(kept) == round(0.4 * sum(sizes))
    assert min(kept) > 0


def layouts_of(family: str) -> Any:
    """The layout of the row with two images."""
    model = model_of(family)
    with torch.no_grad(), pruned(model, build("none", 1.0)) as session:
        model(**single(batch_of(family), 1))
    return session.layouts[0]


def frame_sizes(family: str) -> set[int]:
    return {grid.length for image in layouts_of(family).images for grid in image.grids}


def test_an_image_that_would_vanish_keeps_its_middle_token(greedy: Any) -> None:
    class First(ScorePruner):
        def score(self, view: View) -> Tensor:
            return -torch.arange(len(view.index))

    model, batch = model_of("internvl"), batch_of("internvl")
    first, second = batch.tokens[1]
    budget = len(first) // 2
    pruner = Budgeted(method=First(layer=2), tokens=budget, budget_over="sample")
    with pruned(model, pruner) as session:
        greedy(model, single(batch, 1), 1)
    expected = [*first[: budget - 1].tolist(), int(second[len(second) // 2])]
    assert session.kept[0].tolist() == expected


@pytest.mark.parametrize("name", ["fastv", "visionzip", "pyramiddrop"])
def test_a_number_of_tokens_is_that_of_a_frame(name: str, greedy: Any) -> None:
    model = model_of("qwen3vl")
    inputs, parts = video_prompt("qwen3vl", image=True)
    with pruned(model, Budgeted(method=build(name, 0.5), tokens=7, budget_over="frame")) as session:
        greedy(model, inputs, 1)
    of_each = [torch.isin(session.kept[0], part).sum() for part in holders(parts, session)]
    assert of_each == [7] * 6


def test_methods_with_numbers_of_their_own_keep_them_in_each_frame() -> None:
    table = SparseVLM(budget="table", table=(7, 5, 3), layers=(2, 3, 4), recycle=False)
    model = model_of("qwen25vl")
    inputs, _ = video_prompt("qwen25vl")
    with torch.no_grad(), pruned(model, table, budget_over="frame") as session:
        model(**inputs, use_cache=True)
    assert len(session.kept[0]) == 3 * 5
