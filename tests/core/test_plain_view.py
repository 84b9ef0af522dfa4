"""A view without an engine, and what a configuration and a grid say about positions."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ivcp import DivPrune, IVCPrune
from ivcp.core.errors import UserError
from ivcp.core.layout import Grid, ImageLayout
from ivcp.core.plain_view import PlainView
from ivcp.core.rope import default_frequencies, grid_positions
from ivcp.models import find_family
from ivcp.pruners.compose import Compose
from ivcp.pruners.random import RandomPruning
from ivcp.testing import model_of

IMAGE = ImageLayout((Grid(5, 3, 4),))


def test_a_method_selects_on_what_is_given() -> None:
    states = torch.eye(12)
    states[1] = states[0]  # of the only two that are alike, one goes
    view = PlainView(IMAGE, {"hidden": states})
    kept = DivPrune(keep_ratio=11 / 12).select(view, 0).keep.tolist()
    assert sorted({*range(12)} - {*kept}) in ([0], [1])


def test_what_is_absent_is_refused_by_name() -> None:
    view = PlainView(IMAGE, {"hidden": torch.eye(12), "positions": torch.zeros(3, 12)})
    with pytest.raises(UserError, match=r"^This view has no signal 'values'; it has hidden, posi"):
        view.values()
    with pytest.raises(UserError, match=r"^This view has no signal 'inverse_frequencies'"):
        IVCPrune(layer=1).select(view, 0)


@pytest.mark.parametrize("family", ["qwen2vl", "qwen25vl", "qwen3vl", "llava15"])
def test_frequencies_of_a_configuration_are_those_of_the_model(family: str) -> None:
    model = model_of(family)
    adapter = find_family(model)
    config = adapter.decoder(model).config
    assert torch.equal(default_frequencies(config), adapter.inverse_frequencies(model))


def test_scaled_frequencies_are_refused() -> None:
    config = SimpleNamespace(rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0})
    with pytest.raises(UserError, match=r"^Rotary frequencies of the type 'yarn' are scaled"):
        default_frequencies(config)


def test_positions_of_a_grid_are_those_of_the_library() -> None:
    model = model_of("qwen25vl")
    image = model.config.image_token_id
    ids = torch.tensor([[1, 2, 3, *[image] * 12, 4]])
    positions, _ = model.model.get_rope_index(
        ids, (ids == image).int(), image_grid_thw=torch.tensor([[1, 6, 8]])
    )
    assert torch.equal(grid_positions(3, Grid(3, 3, 4)), positions[:, 0, 3:15])


def test_who_reads_where_the_image_stands() -> None:
    assert IVCPrune(layer=2).reads_start()
    assert RandomPruning(layer=0).reads_start()
    assert not DivPrune().reads_start()
    assert Compose(parts=(DivPrune(), RandomPruning(layer=2))).reads_start()
    assert not Compose(parts=(DivPrune(), DivPrune(layer=2))).reads_start()
