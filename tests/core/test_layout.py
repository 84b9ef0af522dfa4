"""Grids, what they show, and which tokens of a thumbnail show the same."""

from __future__ import annotations

import torch
from recorded import RecordedView

from ivcp.core.layout import Grid, ImageLayout, PromptLayout
from ivcp.models.deepseekvl2 import views
from ivcp.pruners.foreground import ForegroundOnly
from ivcp.pruners.ivcp import IVCPrune

HALVES = ImageLayout(
    (
        Grid(4, 2, 2, "tile", area=(0.0, 0.0, 0.5, 1.0)),
        Grid(8, 2, 2, "tile", area=(0.5, 0.0, 1.0, 1.0)),
        Grid(12, 2, 2, "thumbnail"),
    )
)


def test_a_grid_with_newlines() -> None:
    grid = Grid(10, 2, 3, "tile", step=4)
    assert grid.tokens.tolist() == [10, 11, 12, 14, 15, 16]
    assert grid.centers[0].tolist() == [torch.tensor(1 / 6).item(), 0.25]
    image = ImageLayout((grid,))
    assert (image.start, image.stop, image.length) == (10, 17, 6)


def test_windows_follow_grids_or_rows() -> None:
    assert HALVES.reference_groups == ((0, 4), (4, 4), (8, 4))
    assert ImageLayout((Grid(0, 2, 3, by_row=True),)).reference_groups == ((0, 3), (3, 3))


def test_parents_show_the_same_place() -> None:
    assert HALVES.global_view == (8, 4)
    assert HALVES.thumbnail_index.tolist() == [0, 0, 2, 2, 1, 1, 3, 3, 0, 1, 2, 3]
    alone = ImageLayout((Grid(0, 2, 3),))
    assert alone.global_view == (0, 6)
    assert alone.thumbnail_index.tolist() == list(range(6))


def test_parents_look_through_different_padding() -> None:
    """The whole view pads above and below, the tiles do not: rows must still find each other."""
    image = ImageLayout(
        (
            Grid(0, 4, 4, "thumbnail", area=(0.0, -0.5, 1.0, 1.5)),
            Grid(16, 2, 4, "tile"),
        )
    )
    assert image.thumbnail_index[16:].tolist() == [4, 5, 6, 7, 8, 9, 10, 11]
    assert image.on_padding[:16].tolist() == [True] * 4 + [False] * 8 + [True] * 4


def test_text_queries_leave_structure_out() -> None:
    image = ImageLayout((Grid(1, 2, 2, "tile", step=3),))
    layout = PromptLayout(12, (image,), torch.tensor([3, 6]), query_offset=2)
    assert layout.text.tolist() == [0, 3, 6, 7, 8, 9, 10, 11]
    assert layout.text_queries(image).tolist() == [8, 9, 10, 11]


def test_padding_is_kept_last() -> None:
    image = views(3, (2, 1), 4, global_area=(0.0, -0.5, 1.0, 1.5), local_area=(-0.5, 0.0, 1.5, 1.0))
    layout = PromptLayout(70, (image,), query_offset=2)
    states = torch.randn(2, 70, 16, generator=torch.Generator().manual_seed(0))
    states[:, image.tokens[image.on_padding]] *= 10  # the text would choose it
    view = RecordedView(image, layout, states, 1e4)
    padding = image.on_padding
    for pruner in (
        IVCPrune(keep_ratio=0.4, cos_share=0.0, sin_share=0.0), ForegroundOnly(keep_ratio=0.4)
    ):  # fmt: skip
        keep = pruner.select(view, 0).keep
        assert len(keep) == round(0.4 * image.length) < (~padding).sum()
        assert not padding[keep].any()
    keep = IVCPrune(keep_ratio=0.8).select(view, 0).keep
    assert len(keep) == round(0.8 * image.length) > (~padding).sum()
    assert torch.isin((~padding).nonzero()[:, 0], keep).all()
