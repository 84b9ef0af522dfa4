"""Small blocks, images that are split over steps, and prompts from the prefix cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vllm")

from serving.served import METHODS, answers, named, reference, request, scenes, started

SCENES = scenes()


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    """Steps of 48 tokens are shorter than the images that remain at 0.5 (72 tokens)."""
    with started(
        max_num_batched_tokens=48, block_size=32, enable_prefix_caching=True,
        disable_chunked_mm_input=False,
    ) as engine:  # fmt: skip
        yield engine


@pytest.mark.parametrize("settings", METHODS, ids=named)
def test_chunks_and_prefixes(engine: Any, settings: dict[str, Any]) -> None:
    wanted = [answer for answer, _ in reference().answers(SCENES, settings)]
    prompts = [request(scene, settings) for scene in SCENES]
    assert answers(engine, prompts) == wanted
    assert answers(engine, prompts) == wanted  # most of each prompt comes from the cache
