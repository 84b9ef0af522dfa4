"""VidCom2: the tokens of the release and of vLLM, and what both leave open."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from given import given_video, given_view
from test_golden import cases, read
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.pruners.vidcom2 import VidCom2, frame_budgets, similarities

by_case = pytest.mark.parametrize("folder", cases("vidcom2"), ids=lambda folder: folder.name)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@by_case
def test_the_release_keeps_the_same_tokens(folder: Path) -> None:
    case, golden = read(folder)
    to_video, to_frame = similarities(golden["video_embeds"])
    torch.testing.assert_close(to_video, golden["video_score"], atol=1e-5, rtol=0)
    torch.testing.assert_close(to_frame, golden["frame_score"], atol=1e-5, rtol=0)
    budgets = frame_budgets(to_video, case["retention"])
    assert budgets.long().tolist() == golden["frame_budgets"].tolist()
    frames = [tuple(case["grid_merged"])] * case["T"]
    view = given_video(*frames, hidden=golden["video_embeds"].flatten(0, 1))
    kept = VidCom2(keep_ratio=case["retention"], exact=False).select(view, 0).keep
    assert torch.equal(kept, golden["kept_indices"])


@by_case
def test_vllm_keeps_the_same_tokens(folder: Path) -> None:
    case, golden = read(folder)
    frames = [tuple(case["grid_merged"])] * case["T"]
    view = given_video(*frames, hidden=golden["video_embeds"].flatten(0, 1))
    kept = VidCom2(keep_ratio=case["retention"]).select(view, 0).keep
    assert torch.equal(kept, golden["vllm_mask"].nonzero()[:, 0])


def test_a_surplus_is_taken_from_the_most_similar_tokens() -> None:
    """Budgets of one token a frame at least, for 2 tokens of 6 frames."""
    states = drawn(24, 8)
    view = given_video(*[(2, 2)] * 6, hidden=states)
    ones = VidCom2(keep_ratio=2 / 24, exact=False).select(view, 0).keep
    assert (ones // 4).tolist() == [0, 1, 2, 3, 4, 5]
    to_video, to_frame = similarities(states.view(6, 4, 8))
    similarity = (to_video + to_frame).flatten()
    expected = sorted(ones.tolist(), key=lambda token: similarity[token].item())[:2]
    assert VidCom2(keep_ratio=2 / 24).select(view, 0).keep.tolist() == sorted(expected)


@pytest.mark.parametrize("grids", [[(4, 5)], [(2, 3), (4, 4), (1, 5)]], ids=["one", "tiles"])
def test_an_image_is_a_single_frame(grids: list[tuple[int, int]]) -> None:
    count = sum(rows * columns for rows, columns in grids)
    states = drawn(count, 8)
    to_video, to_frame = similarities(states[None])
    assert torch.equal(to_video, to_frame)
    kept = VidCom2(keep_ratio=0.3).select(given_view(*grids, hidden=states), 0).keep
    assert torch.equal(kept, to_video[0].argsort()[: round(0.3 * count)].sort().values)


def test_frames_without_differences_keep_their_tokens_in_order() -> None:
    view = given_video(*[(2, 2)] * 3, hidden=torch.ones(12, 8))
    assert VidCom2(keep_ratio=0.5).select(view, 0).keep.tolist() == [0, 1, 4, 5, 8, 9]


def test_frames_of_different_sizes_are_refused() -> None:
    view = given_video((2, 2), (2, 3), hidden=drawn(10, 8))
    with pytest.raises(UserError, match="these have 4, 6"):
        VidCom2(keep_ratio=0.5).select(view, 0)
