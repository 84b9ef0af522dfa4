"""Frames decided as images are, images as frames of one, and selections put back in order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from given import given_video, given_view
from torch import Tensor

from ivcp.core.budgeted import Budgeted, with_budget_over
from ivcp.core.errors import UserError
from ivcp.core.plain_view import PlainView
from ivcp.core.pruner import Pruner, Stage
from ivcp.core.selection import Selection
from ivcp.core.view import View
from ivcp.pruners.divprune import DivPrune
from ivcp.pruners.downsample import Downsample
from ivcp.pruners.evs import EVS
from ivcp.pruners.fastv import FastV
from ivcp.pruners.random import RandomPruning
from ivcp.pruners.vidcom2 import VidCom2


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_frame_is_decided_as_an_image_is() -> None:
    states = drawn(30, 8)
    view = given_video(*[(2, 5)] * 3, hidden=states)
    pruner = with_budget_over(DivPrune(keep_ratio=0.4), "frame")
    (selection,) = pruner.select_sample([view], 0)
    expected = []
    for number, frame in enumerate(states.split(10)):
        alone = DivPrune(keep_ratio=0.4).select(given_view((2, 5), hidden=frame), 0)
        expected.append(alone.keep + 10 * number)
    assert torch.equal(selection.keep, torch.cat(expected))


def test_images_are_decided_as_frames_of_one_image() -> None:
    states = drawn(24, 8)
    views = [given_view((2, 4), hidden=part) for part in states.split(8)]
    pruner = with_budget_over(DivPrune(keep_ratio=0.5), "sample")
    kept = [8 * n + each.keep for n, each in enumerate(pruner.select_sample(views, 0))]
    alone = DivPrune(keep_ratio=0.5).select(given_view((6, 4), hidden=states), 0)
    assert torch.equal(torch.cat(kept), alone.keep)
    video = given_video(*[(2, 4)] * 3, hidden=states)
    for method in (VidCom2(keep_ratio=0.5), EVS(keep_ratio=0.75)):
        answers = with_budget_over(method, "sample").select_sample(views, 0)
        kept = [8 * n + each.keep for n, each in enumerate(answers)]
        assert torch.equal(torch.cat(kept), method.select(video, 0).keep)


class Everything(Pruner):
    """Keeps every second token, makes states, and merges others in front and behind."""

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(0), Stage(2))

    def select(self, view: View, stage: int) -> Selection:
        assert view.notes.get("stage", torch.tensor(-1)) == stage - 1
        view.notes["stage"] = torch.tensor(stage)
        numbers = torch.arange(len(view.index))
        states = view.hidden()
        keep, rest = numbers[::2], numbers[1::2]
        if stage:
            return Selection(keep)
        return Selection(
            keep, {"even": keep % 4 == 0}, states[keep] + 1, rest[:3], states[rest[:3]] + 2, 1
        )


@pytest.mark.parametrize("over", ["frame", "sample"])
def test_reasons_states_and_merged_tokens_stay_with_their_tokens(over: Any) -> None:
    states = torch.arange(24.0)[:, None]
    if over == "frame":
        views = [given_video(*[(2, 4)] * 3, hidden=states)]
    else:
        views = [given_view((2, 4), hidden=part) for part in states.split(8)]
    method = with_budget_over(Everything(keep_ratio=0.9), over)
    answers = method.select_sample(views, 0)
    assert len(answers) == len(views)
    kept, merged, starts = [], [], range(0, 24, 8)
    for start, answer in zip(starts, answers, strict=False):
        kept += [start + token for token in answer.keep.tolist()]
        assert torch.equal(answer.states[:, 0], start + answer.keep + 1)
        assert torch.equal(answer.reasons["even"], (start + answer.keep) % 4 == 0)
        if answer.merged_at is not None:
            merged += [start + token for token in answer.merged_at.tolist()]
            assert torch.equal(answer.merged_states[:, 0], start + answer.merged_at + 2)
    assert kept == list(range(0, 24, 2))
    if over == "frame":
        assert merged == [1, 9, 17, 3, 5, 11, 13, 19, 21]
        assert answers[0].merged_before == 3
    else:
        assert merged == [1, 3, 5]
        assert [answer.merged_before for answer in answers] == [1, 0, 0]
    for view, answer in zip(views, answers, strict=True):  # what the engine hands the next stage
        at = answer.keep[:0] if answer.merged_at is None else answer.merged_at
        view.index = torch.cat([answer.keep, at])
        view.signals = {"hidden": states[: len(view.index)]}
    later = method.select_sample(views, 1)
    left = [view.index[answer.keep].tolist() for view, answer in zip(views, later, strict=True)]
    if over == "frame":
        assert left == [[0, 4, 8, 12, 16, 20, 1, 9, 17, 5, 13, 21]]
    else:
        assert left == [[0, 4, 1, 5], [2, 6], [2, 6]]


def test_attention_of_joined_images_is_that_of_the_prompts_end() -> None:
    """Queries of the first image are more: the text between the images is behind it, too."""
    attention = torch.rand(5, 12, generator=torch.Generator().manual_seed(0))
    views = []
    for start, queries in ((0, 5), (6, 3)):
        rows = attention[5 - queries :, start : start + 6]
        view = given_view(
            (2, 3),
            attention=lambda index, rows=rows: rows[index],
            mean_attention=lambda weights, rows=rows: weights.float() @ rows,
        )
        view.text_queries = queries
        views.append(view)
    read: list[Tensor] = []

    class Spy(FastV):
        def select(self, view: View, stage: int) -> Selection:
            read.append(view.attention(torch.tensor([0, 2])))
            read.append(view.mean_attention(torch.tensor([0.0, 1.0, 0.0])))
            return Selection(torch.arange(0, 12, 3))

    with_budget_over(Spy(layer=2), "sample").select_sample(views, 0)
    torch.testing.assert_close(read[0], attention[[2, 4]])
    torch.testing.assert_close(read[1], attention[3])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"budget_over": "frames"}, "budget_over must be video or frame or sample; got 'frames'"),
        ({"method": Downsample(), "budget_over": "frame"}, "Downsample resizes images before"),
    ],
)
def test_refused(settings: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Budgeted(**{"method": RandomPruning(), **settings})
    method = settings.get("method", RandomPruning())
    with pytest.raises(UserError, match=sentence):
        with_budget_over(method, settings["budget_over"])


def test_more_tokens_than_a_frame_has() -> None:
    method = Budgeted(method=DivPrune(), tokens=11, budget_over="frame")
    view = PlainView(given_video((2, 5), (2, 5)).image, {"hidden": drawn(20, 4)}, layers=4)
    with pytest.raises(UserError, match="tokens=11 were asked for, but a frame has 10 visual"):
        method.select_sample([view], 0)
