"""Generation arguments of a task, without lmms-eval."""

from __future__ import annotations

import pytest
from transformers import GenerationConfig

from ivcp.integrations.lmms.generation import Generation


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({}, {"do_sample": False, "max_new_tokens": 128}),
        ({"max_new_tokens": 16}, {"do_sample": False, "max_new_tokens": 16}),
        ({"max_new_tokens": None}, {"do_sample": False, "max_new_tokens": 128}),
        (
            {"temperature": 0, "top_p": 1.0, "num_beams": 3, "do_sample": True},
            {"do_sample": False, "max_new_tokens": 128, "num_beams": 3},
        ),
        (
            {"temperature": 0.7, "top_k": 5},
            {"do_sample": True, "max_new_tokens": 128, "temperature": 0.7, "top_k": 5},
        ),
        ({"temperature": 0.7, "do_sample": False}, {"do_sample": False, "max_new_tokens": 128}),
        ({"do_sample": True}, {"do_sample": True, "max_new_tokens": 128}),
        (
            {"until": ["."], "repetition_penalty": 1.1},
            {"do_sample": False, "max_new_tokens": 128, "repetition_penalty": 1.1},
        ),
    ],
)
def test_arguments_of_generate(given, arguments) -> None:
    found = Generation.of(given, GenerationConfig(), 128)
    assert found.arguments == arguments
    assert not found.unknown


def test_what_generate_does_not_know_is_left_out_and_named() -> None:
    found = Generation.of({"image_aspect_ratio": "pad", "seed": 1}, GenerationConfig(), 8)
    assert found.unknown == ("image_aspect_ratio", "seed")
    assert found.arguments == {"do_sample": False, "max_new_tokens": 8}


@pytest.mark.parametrize(
    ("until", "text"),
    [
        (["\n\n", "stop"], "one "),
        ("two", "one stop "),
        (["", "three"], "one stop two\n\n"),
        ([], "one stop two\n\nthree"),
        (None, "one stop two\n\nthree"),
    ],
)
def test_an_answer_ends_before_the_first_stop(until, text) -> None:
    found = Generation.of({"until": until}, GenerationConfig(), 8)
    assert found.cut("one stop two\n\nthree") == text
