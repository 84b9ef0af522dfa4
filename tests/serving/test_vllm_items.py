"""Where images stand in vLLM's prompts, and what decides which of their tokens remain."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ivcp.integrations.vllm.item import Item, expanded, placed, prompt_positions
from ivcp.testing import model_of

ITEM = Item('{"pruner": "ivc"}', 3, 4, 6, 5, 5, False, 0)


def test_items_travel_as_numbers() -> None:
    item = replace(ITEM, prompt=(1, 2, 3), grids=((3, 4), (1, 2)))
    assert Item.read(item.tensor()) == item
    assert item.tensor().dtype == torch.uint8


def test_hashes_differ_by_what_decides() -> None:
    moved = replace(ITEM, start=9, position=7)
    assert moved.identity(False) == ITEM.identity(False)
    assert moved.identity(True) != ITEM.identity(True)
    asked = replace(ITEM, prompt=(1, 2), grids=((3, 4),))
    changes = [
        replace(ITEM, settings='{"pruner": "pool"}'), replace(ITEM, kept=5), asked,
        replace(asked, prompt=(1, 3)), replace(asked, number=1),
    ]  # fmt: skip
    identities = {each.identity(False) for each in (ITEM, *changes)}
    assert len(identities) == 1 + len(changes)


@pytest.mark.parametrize("family", ["qwen2vl", "qwen25vl", "qwen3vl"])
def test_positions_are_those_of_the_library(family: str) -> None:
    """Two images, the first pruned to three tokens."""
    model = model_of(family)
    image, grids = model.config.image_token_id, [(3, 5), (2, 2)]
    prompt = [7, 8, image, 9, 7, image, 6, 5]
    ids = expanded(prompt, image, grids)
    sizes = torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in grids])
    wanted, _ = model.model.get_rope_index(
        torch.tensor([ids]), (torch.tensor([ids]) == image).int(), image_grid_thw=sizes
    )
    wanted = wanted[-3:, 0]
    starts = placed(prompt, image, grids)
    assert [ids[start] for start, _ in starts] == [image, image]
    assert [int(wanted[0, start]) for start, _ in starts] == [position for _, position in starts]
    positions, delta = prompt_positions(len(ids) - 12, [(2, 3, 5), (7, 4, 2)])
    text = [n for n, token in enumerate(ids) if token != image]
    slots = [0, 1, 5, 6, 11, 12]
    assert torch.equal(positions[:, slots], wanted[:, text])
    assert positions[:, 2:5].unique().tolist() == [starts[0][1]]
    assert delta == int(wanted.max()) + 1 - (len(ids) - 12)


def test_a_prompt_with_another_number_of_images() -> None:
    with pytest.raises(ValueError, match=r"^The prompt must have one placeholder for each image; "):
        placed([1, 9, 9], 9, [(2, 2)])
