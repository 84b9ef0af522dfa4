"""Fixtures for all tests; `ivcp.testing` makes the models and their inputs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from ivcp.core.errors import LibraryTooOldError
from ivcp.testing import END, IMAGE, SMALL, START, VIDEO

torch.set_num_threads(1)  # the tensors of tests are too small for several threads
os.environ.setdefault("OMP_NUM_THREADS", "1")  # so they are in the processes that tests start

collect_ignore_glob = ["*/conftest.py", "standins/*"]  # no doctests there, nor unique names


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, Any, Any]:
    """Skip what the installed `transformers` is too old for."""
    try:
        return (yield)
    except LibraryTooOldError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Without the handlers that Hydra leaves, which write to the closed output of their test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def qwen() -> Qwen2_5_VLForConditionalGeneration:
    return SMALL["qwen25vl"].model()


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real photos and questions, which are not part of the project."""
    folder = Path(__file__).parents[2] / "shared" / "realdata"
    if not folder.is_dir():
        pytest.skip("the real photos are not here")
    return folder


@pytest.fixture
def greedy() -> Callable[..., Any]:
    """Generate greedily and return sequences and logits."""

    def run(model: Any, inputs: dict[str, Tensor], tokens: int = 3, **kwargs: Any) -> Any:
        return model.generate(
            **inputs, max_new_tokens=tokens, do_sample=False, eos_token_id=None,
            output_logits=True, return_dict_in_generate=True,
            suppress_tokens=[IMAGE, VIDEO, START, END], **kwargs,
        )  # fmt: skip

    return run
