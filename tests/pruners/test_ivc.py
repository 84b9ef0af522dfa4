"""IVC tokens of other rotary bases and of shifted positions, compared with a plain restatement."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from given import given_view

from ivcp.core.errors import UserError
from ivcp.core.plain_view import PlainView
from ivcp.core.rope import plain_frequencies
from ivcp.core.selection import budget
from ivcp.models import find_family
from ivcp.pruners.ivc import IVCOnly
from ivcp.testing import SMALL, model_of

GRIDS = [[(8, 10)], [(6, 6), (6, 6), (4, 5)]]
DIM = 16


def view_of(grids: list[tuple[int, int]], axes: int, start: int = 7) -> PlainView:
    """An image behind `start` tokens, with one position axis or, as M-RoPE has them, three."""
    length = sum(rows * columns for rows, columns in grids)
    positions = torch.arange(start, start + length)[None]
    if axes == 3:  # text before the image, rows, columns
        ((_, columns),) = grids
        along = torch.arange(length)
        positions = start + torch.stack([0 * along, along // columns, along % columns])
    frequencies = torch.tensor([10000 ** (-2 * j / DIM) for j in range(DIM // 2)])
    return given_view(*grids, positions=positions, inverse_frequencies=frequencies)


def by_turns(view: PlainView, target: int, base: float, offset: int) -> list[int]:
    """The tokens of each grid, one place of the list by cosine and of the list by sine a turn."""
    theta = [base ** (-2 * j / DIM) for j in range(DIM // 2)]
    places = {}
    for first, count in view.image.spans:
        for wave in (math.cos, math.sin):
            score = {
                n: sum(
                    wave((int(axis[n]) + offset) * t) for axis in view.positions() for t in theta
                )
                for n in range(first, first + count)
            }
            for place, n in enumerate(sorted(score, key=lambda n: -round(score[n], 4))):
                share = place / (count if len(view.image.spans) > 1 else 1)
                places[n] = min(share, places.get(n, math.inf))
    return sorted(sorted(places, key=lambda n: (places[n], n))[:target])


@pytest.mark.parametrize("fields", [{}, {"rope_base": 300.0}, {"offset": 23}, {"offset": -5},
                                    {"rope_base": 50000.0, "offset": 4}], ids=str)  # fmt: skip
@pytest.mark.parametrize(("grids", "axes"), [(GRIDS[0], 1), (GRIDS[0], 3), (GRIDS[1], 1)])
@pytest.mark.parametrize("ratio", [0.1, 0.37])
def test_it_is_the_rule_of_the_base_and_the_offset(
    fields: dict[str, Any], grids: list[tuple[int, int]], axes: int, ratio: float
) -> None:
    view = view_of(grids, axes)
    selection = IVCOnly(keep_ratio=ratio, **fields).select(view, 0)
    target = budget(ratio, view.image.length)
    expected = by_turns(view, target, fields.get("rope_base", 10000.0), fields.get("offset", 0))
    assert selection.keep.tolist() == expected
    assert selection.reasons["ivc"].all()
    if fields:
        assert expected != by_turns(view, target, 10000.0, 0), "the control differs"


def test_an_offset_is_a_longer_text_before_the_image() -> None:
    shifted = IVCOnly(keep_ratio=0.3, offset=11).select(view_of([(8, 10)], 1), 0)
    later = IVCOnly(keep_ratio=0.3).select(view_of([(8, 10)], 1, start=18), 0)
    assert torch.equal(shifted.keep, later.keep)


@pytest.mark.parametrize("name", SMALL)
def test_the_base_of_a_model_gives_its_own_bits(name: str) -> None:
    model = model_of(name)
    family = find_family(model)
    rope = family.decoder(model).config.rope_parameters
    rope = rope.get("full_attention", rope)  # Gemma 3 has another base in sliding layers
    assert rope["rope_type"] in ("default", "linear")
    own = family.inverse_frequencies(model)
    plain = plain_frequencies(rope["rope_theta"], len(own)) / rope.get("factor", 1.0)
    assert torch.equal(plain, own)


@pytest.mark.parametrize("base", [1, 0, -3.0, math.inf, math.nan])
def test_a_base_that_is_none(base: float) -> None:
    with pytest.raises(UserError, match=r"^rope_base must be a number above 1"):
        IVCOnly(rope_base=base)


@pytest.mark.parametrize("offset", [0.5, True, None])
def test_an_offset_that_is_none(offset: Any) -> None:
    with pytest.raises(UserError, match=r"^offset must be a whole number"):
        IVCOnly(offset=offset)
