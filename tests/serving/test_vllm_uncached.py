"""An engine without a cache of processed images, and with a pruner of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vllm")

from serving.served import METHODS, answers, named, reference, request, scenes, started

SCENES = scenes()
DEFAULT = {"pruner": "divprune", "keep_ratio": 0.5}


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    with started(settings=DEFAULT, mm_processor_cache_gb=0) as engine:
        yield engine


@pytest.mark.parametrize("settings", METHODS, ids=named)
def test_no_processor_cache(engine: Any, settings: dict[str, Any]) -> None:
    wanted = [answer for answer, _ in reference().answers(SCENES, settings or DEFAULT)]
    assert answers(engine, [request(scene, settings) for scene in SCENES]) == wanted


def test_requests_without_settings_have_the_engine_s(engine: Any) -> None:
    wanted = [answer for answer, _ in reference().answers(SCENES, DEFAULT)]
    assert answers(engine, [request(scene, None) for scene in SCENES]) == wanted
    wanted = [answer for answer, _ in reference().answers(SCENES, {**DEFAULT, "keep_ratio": 0.25})]
    prompts = [request(scene, {"keep_ratio": 0.25}) for scene in SCENES]
    assert answers(engine, prompts) == wanted
