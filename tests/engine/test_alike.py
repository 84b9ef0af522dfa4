"""Prompts that are laid out alike: one selection for all of them, equal to a selection each."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from test_devices import Devices, placed, spread
from test_invariants import PRUNERS, build

from benchmarks.prefill.bench import Dispatched, counted_stages
from ivcp import pruned
from ivcp.core.view import View
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivcp import IVCPrune
from ivcp.testing import SMALL, model_of, prompts, single

TOGETHER = [name for name in PRUNERS if build(name, 0.5).runs_vectorized()]


def test_methods_are_among_them() -> None:
    assert {"ivcp", "ivcp_two_pass", "fastv"} <= set(TOGETHER)
    assert "random" not in TOGETHER, "its draw depends on the sample's id"
    assert not IVCPrune(foreground_share=0.4).runs_vectorized()


def test_a_decision_of_ones_own_is_taken_image_by_image() -> None:
    class Mine(FastV):
        def score(self, view: View) -> torch.Tensor:
            return super().score(view)

    class Declared(Mine):
        vectorized = True

    class Renamed(FastV):
        pass

    assert [kind().runs_vectorized() for kind in (Mine, Declared, Renamed)] == [False, True, True]


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("layer", [None, 3])
def test_alike_equals_single(
    family: str, name: str, layer: int | None, greedy: Any, monkeypatch: Any
) -> None:
    """Two kinds of prompts, and one that is alone, in one batch."""
    a, b, *_ = SMALL[family].images
    batch = prompts(
        [5, a, 3, 4], [9, b, 2], [5, a, 2, 5], [5, b, 12], [5, a, 6, 1], [5, b, 11, 1],
        family=family,
    )  # fmt: skip
    model = model_of(family)
    pruner = build(name, 0.4, **({} if layer is None else {"layer": layer}))
    calls, select = [], type(pruner).select
    monkeypatch.setattr(
        type(pruner), "select", lambda self, *args: calls.append(1) or select(self, *args)
    )
    monkeypatch.setattr(type(pruner), "vectorized", True)  # the patch is a select of its own
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # an operation that vmap runs one by one
        with pruned(model, pruner) as session:
            together = greedy(model, batch.inputs, 2)
    kept, reasons = session.kept, session.reasons
    # areas of InternVL follow from pixels, so images of equal size may be laid out otherwise
    assert len(calls) <= 4
    for row in range(len(batch.lengths)):
        with pruned(model, pruner) as session:
            alone = greedy(model, single(batch, row), 2)
        assert torch.equal(session.kept[0], kept[row])
        assert session.reasons[0] == reasons[row]
        for first, second in zip(together.logits, alone.logits, strict=True):
            torch.testing.assert_close(first[row], second[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", ["qwen25vl", "deepseekvl2"])
@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("model_of_devices", [placed, spread])
def test_it_mixes_no_devices_and_waits_once(family: str, name: str, model_of_devices: Any) -> None:
    image = SMALL[family].images[0]
    batch = prompts(*[[5, image, 1 + row, 9 - row] for row in range(3)], family=family)
    model = model_of_devices(family)
    with torch.no_grad(), pruned(model, build(name, 0.4)), Devices() as devices:
        inputs = {key: value.to(torch.device("xpu", 0)) for key, value in batch.inputs.items()}
        devices.waits.clear()
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert not devices.faults
    if model_of_devices is placed:
        assert len(devices.waits) == 1


@pytest.mark.parametrize("name", TOGETHER)
def test_a_stage_takes_as_many_operations_for_more_samples(name: str, monkeypatch: Any) -> None:
    """Where a GPU runs them: the checks of values on the CPU are left out."""
    monkeypatch.setattr("ivcp.engine.checks.thorough", lambda device: False)
    model, counts = model_of("qwen25vl"), []
    for rows in (2, 6):
        inputs = prompts(*[[5, (6, 9), 1 + row, 9 - row] for row in range(rows)]).inputs
        operations = Dispatched()
        with torch.no_grad(), pruned(model, build(name, 0.4)), counted_stages(operations):
            model(**inputs, use_cache=True)
        counts.append(operations.counts["operations"])
    assert counts[0] == counts[1]
