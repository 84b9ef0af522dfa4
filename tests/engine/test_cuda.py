"""Every method on every family on a GPU: the tokens that it keeps and the text are the CPU's."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from test_invariants import build, every_pair
from torch import Tensor

from ivcp import pruned
from ivcp.testing import SMALL, batch_of, model_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of patches run in TF32 by default, which is too coarse to compare."""
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")


@cache
def on_gpu(family: str, dtype: torch.dtype) -> Any:
    return deepcopy(model_of(family)).to("cuda", dtype)


def moved(family: str, dtype: torch.dtype) -> dict[str, Tensor]:
    inputs = {name: value.to("cuda") for name, value in batch_of(family).inputs.items()}
    return {n: v.to(dtype) if v.is_floating_point() else v for n, v in inputs.items()}


@every_pair
def test_kept_tokens_and_text_are_those_of_the_cpu(family: str, name: str, greedy: Any) -> None:
    pruner = build(name, 0.4)
    with pruned(model_of(family), pruner) as session:
        expected, kept = greedy(model_of(family), batch_of(family).inputs), session.kept
    with pruned(on_gpu(family, torch.float32), pruner) as session:
        found = greedy(on_gpu(family, torch.float32), moved(family, torch.float32))
    assert torch.equal(found.sequences.cpu(), expected.sequences)
    for first, second in zip(session.kept, kept, strict=True):
        assert torch.equal(first.cpu(), second)
    for first, second in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(first.cpu(), second, atol=1e-4, rtol=0)


@every_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_keep_everything_is_bit_identical(
    family: str, name: str, dtype: torch.dtype, greedy: Any
) -> None:
    model, inputs = on_gpu(family, dtype), moved(family, dtype)
    plain = greedy(model, inputs)
    with pruned(model, build(name, 1.0)):
        same = greedy(model, inputs)
    assert torch.equal(plain.sequences, same.sequences)
    for first, second in zip(plain.logits, same.logits, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("family", SMALL)
def test_bfloat16_keeps_the_budget(family: str, greedy: Any) -> None:
    with pruned(on_gpu(family, torch.bfloat16), build("ivcp", 0.4, family)) as session:
        greedy(on_gpu(family, torch.bfloat16), moved(family, torch.bfloat16))
    for kept, images in zip(session.kept, batch_of(family).tokens, strict=True):
        assert len(kept) == sum(max(1, round(0.4 * len(image))) for image in images)
