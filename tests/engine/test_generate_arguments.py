"""Arguments of `generate` that cannot be used are refused by name, before a model is loaded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ivcp.core.errors import UserError
from ivcp.engine.generate_arguments import check_generation


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_new_token", 5, r"takes no argument 'max_new_token'; did you mean max_new_tokens or "),
        ("no_such_argument", 1, r"takes no argument 'no_such_argument'; leave it out"),
        ("validate", 1, r"takes no argument 'validate'"),  # a method of the configuration
        ("max_new_tokens", 0, "max_new_tokens must be a whole number of at least 1; got 0"),
        ("max_new_tokens", "many", "max_new_tokens must be .* got 'many'"),
        ("do_sample", "maybe", "generation.do_sample must be true or false or null; got 'maybe'"),
        ("num_beams", 0, "num_beams must be a whole number of at least 1; got 0"),
        ("num_beams", "two", "num_beams must be a whole number or null; got 'two'"),
        ("eos_token_id", "x", "eos_token_id must be a whole number or a list"),
        ("repetition_penalty", 0, "cannot be used: .*strictly positive float, but is 0"),
        ("bad_words_ids", 3, "cannot be used: .*bad_words_ids"),
        ("exponential_decay_length_penalty", 3, "cannot be used: "),
        ("no_repeat_ngram_size", "x", "cannot be used: "),
        ("cache_implementation", "none", "cannot be used: .*cache_implementation"),
        ("return_dict_in_generate", True, "return_dict_in_generate must be false"),
        ("stop_strings", ["]"], "stop_strings needs a tokenizer"),
        ("guidance_scale", 2, "guidance_scale runs the model on a second prompt"),
        ("penalty_alpha", 0.6, "penalty_alpha needs code from the hub, which is never run"),
        ("num_return_sequences", 2, "num_return_sequences must be 1; got 2: a sample has one"),
        ("prompt_lookup_num_tokens", 3, "prompt_lookup_num_tokens cannot be used"),
        ("use_cache", False, "use_cache=False cannot be used"),
    ],
)
def test_one_sentence(name: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_generation({"max_new_tokens": 3, name: value})
    assert "trust_remote_code" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1), ("top_p", 3), ("top_k", 0.5), ("min_p", 2), ("typical_p", 7)],
)
def test_ranges_of_sampling(name: str, value: float) -> None:
    with pytest.raises(UserError):
        check_generation({"do_sample": True, name: value})


def test_what_holds_no_arguments() -> None:
    with pytest.raises(UserError, match=r"generation must hold keyword arguments of .* got None"):
        check_generation(None)  # type: ignore[arg-type]


def test_settings_that_can_be_used_stay_as_they_are() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    settings = {
        "do_sample": True, "temperature": 0.7, "top_p": 0.9, "num_beams": 2, "min_new_tokens": 9,
        "eos_token_id": [151645, 151643], "suppress_tokens": [151652], "repetition_penalty": 1.1,
        "max_new_tokens": None,
    }  # fmt: skip
    assert check_generation(settings) == settings
    assert torch.equal(torch.rand(1), expected)  # nothing was drawn from the generator


def test_a_temperature_of_zero_is_greedy() -> None:
    settings = {"do_sample": True, "temperature": 0, "top_p": 0.5, "max_new_tokens": 3}
    assert check_generation(settings) == {"do_sample": False, "max_new_tokens": 3}
