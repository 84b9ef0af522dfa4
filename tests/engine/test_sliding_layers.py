"""Layers with a sliding window, and images that attend in both directions: what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_hostile_use import METHODS, run
from transformers import DynamicCache

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.pairing import fit_pair
from ivcp.engine.masks import attention_mask
from ivcp.models.llava15 import Llava15
from ivcp.pruners.none import NoPruning
from ivcp.pruners.random import RandomPruning
from ivcp.testing import SMALL, model_of, prompts, random_model

FAMILY = "gemma3"
PROMPT = prompts([5, None, 17], family=FAMILY)
WINDOW = PROMPT.lengths[0] + 4
TOO_LONG = (
    r"^A pruned prompt and its answer must have fewer tokens than the sliding window .* is {}; g"
)


def windowed(window: int) -> Any:
    return random_model(SMALL[FAMILY].config(text={"sliding_window": window}))


def test_a_prompt_longer_than_the_window() -> None:
    model = windowed(PROMPT.lengths[0])
    with pruned(model, RandomPruning()), pytest.raises(UserError, match=TOO_LONG.format(60)):
        run(model, PROMPT.inputs)
    plain = run(model, PROMPT.inputs).logits
    with pruned(model, NoPruning()):
        assert torch.equal(run(model, PROMPT.inputs).logits, plain)


@pytest.mark.parametrize("name", ["uniform", "uniform, earlier KV whole", "ivcp", "visionzip"])
def test_an_answer_that_leaves_the_window(name: str, greedy: Any) -> None:
    model, wide = windowed(WINDOW), model_of(FAMILY)
    with pruned(wide, METHODS[name]):
        expected = greedy(wide, PROMPT.inputs, 4)
    with pruned(model, METHODS[name]):
        inside = greedy(model, PROMPT.inputs, 4)  # the fourth token is never stored
        assert all(map(torch.equal, inside.logits, expected.logits))
        with pytest.raises(UserError, match=TOO_LONG.format(WINDOW)):
            greedy(model, PROMPT.inputs, 5)


def test_a_pruned_cache_outside_of_the_session() -> None:
    model = windowed(WINDOW)
    cache = DynamicCache(config=model.config)
    with pruned(model, METHODS["uniform"]):
        run(model, PROMPT.inputs, past_key_values=cache)
    turn = {"input_ids": torch.full((1, 4), 40)}
    with pytest.raises(UserError, match=TOO_LONG.format(WINDOW)):
        run(model, turn, past_key_values=cache)


def test_flash_attention_has_no_such_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(FAMILY)
    monkeypatch.setattr("ivcp.engine.hooks.backend_of", lambda _: "flash_attention_2")
    sentence = r"^The visual tokens of this model attend to each other in both directions"
    with pruned(model, RandomPruning()), pytest.raises(UserError, match=sentence):
        run(model, PROMPT.inputs)


def test_masks_of_images() -> None:
    blocks = torch.tensor([[-1, 0, 0, -1, 1, 1]])
    mask = attention_mask("sdpa", 6, None, 8, torch.zeros(1, 6, 1), blocks)
    assert mask is not None
    causal = torch.ones(8, 8, dtype=torch.bool).tril()[2:]
    causal[1, 4] = causal[4, 7] = True  # to the second token of each image, behind two of the past
    assert torch.equal(mask[0, 0], causal)


def test_a_family_without_windows_refuses_before_weights_load(tmp_path: Any) -> None:
    config = SMALL["llava15"].config(text={"model_type": "mistral", "sliding_window": 16})
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^Pruning does not support models with sliding-window"):
        fit_pair(RandomPruning(), Llava15(path=str(tmp_path)), "llava15")
