"""EVS: the tokens of vLLM, and budgets below the first frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from given import given_video, given_view
from test_golden import cases, read

from ivcp.pruners.evs import EVS


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("folder", cases("evs"), ids=lambda folder: folder.name)
def test_vllm_keeps_the_same_tokens(folder: Path, whole: bool) -> None:
    case, golden = read(folder)
    frames = [tuple(case["grid_merged"])] * case["T"]
    states = golden["video_embeds"].flatten(0, 1)
    ratio = case["kept"] / len(states)  # vLLM rounds the number of tokens down
    pruner = EVS(keep_ratio=ratio, whole_first_frame=whole)
    selection = pruner.select(given_video(*frames, hidden=states), 0)
    assert torch.equal(selection.keep, golden["kept_indices"])
    assert selection.reasons is not None
    assert int(selection.reasons["first_frame"].sum()) == golden["frame_counts"][0]


def test_a_frame_in_which_nothing_moves_may_vanish() -> None:
    states = torch.eye(8)[torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, 5, 2, 6])]
    view = given_video(*[(2, 2)] * 3, hidden=states)
    assert EVS(keep_ratio=0.5).select(view, 0).keep.tolist() == [0, 1, 2, 3, 9, 11]
    # of equal tokens, the earlier one
    assert EVS(keep_ratio=7 / 12).select(view, 0).keep.tolist() == [0, 1, 2, 3, 4, 9, 11]


def test_a_budget_below_the_first_frame() -> None:
    view = given_video(*[(2, 5)] * 3, hidden=torch.randn(30, 8))
    assert EVS(keep_ratio=5 / 30).select(view, 0).keep.tolist() == [1, 3, 5, 7, 9]
    whole = EVS(keep_ratio=5 / 30, whole_first_frame=True)
    assert whole.select(view, 0).keep.tolist() == list(range(10))
    assert not whole.fills_ratio()


def test_an_image_is_a_single_frame() -> None:
    view = given_view((2, 3), (1, 2), hidden=torch.ones(8, 4))
    assert EVS(keep_ratio=0.25).select(view, 0).keep.tolist() == [2, 6]
    assert len(EVS(keep_ratio=0.25, whole_first_frame=True).select(view, 0)) == 8
