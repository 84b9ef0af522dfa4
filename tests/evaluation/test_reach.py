"""What the kept tokens still reach."""

from __future__ import annotations

from math import hypot

import pytest
import torch
from PIL import Image

from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.types import Sample
from ivcp.evaluation.reach import coverage, kept_in_box, reached

FOUR = ImageLayout((Grid(3, 2, 2),))
WIDE = ImageLayout((Grid(5, 2, 4),))
SIZE = (100, 50)


def test_tokens_whose_centres_lie_in_the_box_are_inside() -> None:
    left = (0.0, 0.0, 40.0, 50.0)
    assert kept_in_box(FOUR, {3, 6}, left, SIZE) == 0.5
    assert kept_in_box(FOUR, {3, 5}, left, SIZE) == 1.0
    assert kept_in_box(FOUR, {4, 6}, left, SIZE) == 0.0


def test_a_box_between_centres_has_the_nearest_token() -> None:
    corner = (99.0, 49.0, 100.0, 50.0)
    assert kept_in_box(FOUR, {6}, corner, SIZE) == 1.0
    assert kept_in_box(FOUR, {3, 4, 5}, corner, SIZE) == 0.0


def test_coverage_is_the_largest_gap_in_diagonals_of_the_image() -> None:
    assert coverage([WIDE], set(range(5, 13))) == 0.0
    assert coverage([WIDE], {5, 6, 7, 8}) == pytest.approx(1 / hypot(4, 2))
    assert coverage([WIDE], {5}) == pytest.approx(hypot(3, 1) / hypot(4, 2))
    assert coverage([WIDE], set()) == 1.0
    assert coverage([WIDE, FOUR], {*range(5, 13), 3, 4}) == pytest.approx(0.0)
    assert coverage([WIDE, ImageLayout((Grid(20, 2, 2),))], set(range(5, 13))) == 1.0


def test_coverage_agrees_with_all_distances_of_random_tokens() -> None:
    image = ImageLayout((Grid(0, 9, 7),))
    where = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij"), -1)
    where = where.reshape(-1, 2)
    for seed in range(5):
        kept = torch.randperm(63, generator=torch.Generator().manual_seed(seed))[:6]
        largest = torch.cdist(where, where[kept]).amin(1).amax().item()
        assert coverage([image], set(kept.tolist())) == pytest.approx(largest / hypot(9, 7))


def test_padding_needs_no_token_near_it() -> None:
    padded = ImageLayout((Grid(0, 4, 2, area=(0.0, -0.5, 1.0, 1.5)),))
    assert coverage([padded], {2, 3, 4, 5}) == 0.0
    assert coverage([padded], {4, 5}) == pytest.approx(1 / hypot(2, 2))


def test_a_tile_is_reached_by_the_thumbnail() -> None:
    tiles = Grid(0, 2, 2, "tile"), Grid(4, 2, 2, "thumbnail")
    assert coverage([ImageLayout(tiles)], {4, 5, 6, 7}) == 0.0


def test_distances_are_those_of_the_image_and_not_of_its_square_thumbnail() -> None:
    thumbnail = Grid(0, 4, 4, "thumbnail")
    tiles = Grid(16, 4, 4, "tile", area=(0, 0, 0.5, 1)), Grid(32, 4, 4, "tile", area=(0.5, 0, 1, 1))
    image, other = ImageLayout((thumbnail, *tiles)), ImageLayout((*tiles, thumbnail))
    assert coverage([image], {16}) == coverage([other], {16}) == pytest.approx(0.851, abs=1e-3)


def test_a_box_that_is_none_is_left_out() -> None:
    nowhere = (float("nan"), 0.0, 40.0, 50.0)
    image = Image.new("RGB", SIZE)
    sample = Sample(id="a", task="grounding", images=(image,), question="", answer=nowhere)
    assert list(reached(sample, [FOUR], [[3]])) == ["coverage"]


def test_only_grounding_has_a_box() -> None:
    image = Image.new("RGB", SIZE)
    box = Sample(
        id="a", task="grounding", images=(image,), question="", answer=(0.0, 0.0, 40.0, 50.0)
    )
    word = Sample(id="b", task="yes_no", images=(image,), question="", answer="Yes")
    stages = [[3, 4, 5], [3]]
    assert reached(box, [FOUR], stages)["kept_in_box"] == (1.0, 0.5)
    assert list(reached(word, [FOUR], stages)) == ["coverage"]
    assert reached(word, [], [[]]) == {}
