"""Two processes share the heads of the tower and of the language model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("vllm")

from serving.served import (
    METHODS,
    TOWER_METHODS,
    answers,
    named,
    reference,
    request,
    scenes,
    started,
)

SCENES = scenes()


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    with started(tensor_parallel_size=2) as engine:
        yield engine


@pytest.mark.parametrize("settings", [*METHODS[:13:2], *TOWER_METHODS[::2]], ids=named)
def test_tensor_parallelism(engine: Any, settings: dict[str, Any]) -> None:
    wanted = [answer for answer, _ in reference().answers(SCENES, settings)]
    assert answers(engine, [request(scene, settings) for scene in SCENES]) == wanted
