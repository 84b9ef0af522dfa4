"""Rotated runs: their order, what is counted, and that both answers have the same length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ivcp.bench import rotation
from ivcp.bench.result import Times
from ivcp.bench.rotation import RotatedRuns
from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.datasets.scenes import make_scene
from ivcp.engine.attach import open_session
from ivcp.measure.flops import DecoderSizes
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning

HALF = IVCPrune(keep_ratio=0.5, layer=4)
MadeRuns = Callable[..., RotatedRuns]


@pytest.fixture(scope="module")
def make() -> MadeRuns:
    """Runs of the packaged model on copies of one scene."""
    family = Qwen25VL(path=None, dtype="float32")
    model, processor = family.load()
    sample = Sample(
        id="one", task="open_ended", images=(make_scene(0, "test", 0).render(),), question="What?",
        answer="", verbatim=True,
    )  # fmt: skip

    def build(pruner: Any = HALF, *more: Any, copies: int = 1, **options: Any) -> RotatedRuns:
        inputs = family.encode(processor, [sample] * copies).inputs
        return RotatedRuns(model, family, [pruner, *more], inputs, question="What?", **options)

    return build


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_each_repeat_begins_with_the_next_one(make: MadeRuns, monkeypatch) -> None:
    runs, order = make(HALF, FastV(keep_ratio=0.5)), []
    zero = Times(**dict.fromkeys(Times.model_fields, 0))
    monkeypatch.setattr(runs, "_time", lambda number, turn: order.append(number) or zero)
    measured = list(runs.repeats(repeats=3, warmup=2))
    assert order == [1, 2, 0, 2, 0, 1, 0, 1, 2, 1, 2, 0, 2, 0, 1]
    assert measured == [[zero] * 3] * 3


def test_only_pruned_runs_have_a_session(make: MadeRuns, monkeypatch) -> None:
    runs, seen, opened = make(), [], []
    generate = runs._generate

    def watch(number: int, **options: Any) -> Any:
        seen.append((len(opened), hooks(runs.family.decoder(runs.model).layers)))
        return generate(number, **options)

    def count(*args: Any) -> Any:
        opened.append(args)
        return open_session(*args)

    monkeypatch.setattr(runs, "_generate", watch)
    monkeypatch.setattr(rotation, "open_session", count)
    list(runs.repeats(repeats=1, warmup=0))
    # two counted prefills, then the pair; layers have hooks during a pass that needs them alone
    assert [sessions for sessions, _ in seen] == [0, 1, 1, 2]
    assert {count for _, count in seen} == {0}
    assert hooks(runs.model) == 0


@pytest.mark.parametrize("pruner", [HALF, FastV(keep_ratio=0.3, layer=2)], ids=type)
def test_bytes_and_tokens_are_those_of_the_session(make: MadeRuns, pruner) -> None:
    runs = make(pruner)
    sizes = DecoderSizes.of(runs.family.decoder(runs.model))
    with torch.inference_mode(), open_session(runs.model, runs.family, pruner) as session:
        runs.model.generate(**runs.inputs[0], max_new_tokens=1)
    layout, counts = session.layouts[0], runs.counts(1)
    assert counts.kv_cache_bytes.pruned == session.cache_bytes
    assert counts.kv_cache_bytes.unpruned == sizes.cache_bytes(layout.length, 4)
    stored = [tokens[0] for tokens in session.cache_lengths]
    assert counts.kv_cache_bytes.ratio == pytest.approx(sum(stored) / (8 * layout.length))
    assert counts.visual_tokens.unpruned == 144
    assert counts.visual_tokens.pruned == len(session.kept[0]) == round(144 * pruner.keep_ratio)
    assert counts.prompt_tokens.pruned == stored[-1]
    early = pruner.layer / 8
    average = early * 144 + (1 - early) * len(session.kept[0])
    assert counts.layer_average_tokens.pruned == pytest.approx(average)
    assert counts.prefill_flops_counted.ratio == pytest.approx(
        counts.prefill_flops_formula.ratio, rel=0.05
    )


@pytest.mark.parametrize("pruner", [IVCPrune(keep_ratio=1, layer=4), NoPruning()], ids=type)
def test_without_anything_pruned_nothing_is_saved(make: MadeRuns, pruner) -> None:
    counts = make(pruner).counts(1)
    assert counts.kv_cache_bytes.ratio == 1
    assert counts.visual_tokens.ratio == counts.layer_average_tokens.ratio == 1
    assert counts.prefill_flops_formula.ratio == 1


def test_copies_multiply_bytes_and_operations(make: MadeRuns) -> None:
    one, three = make().counts(1), make(copies=3).counts(1)
    for name in ("kv_cache_bytes", "prefill_flops_counted", "prefill_flops_formula"):
        of_one, of_three = getattr(one, name), getattr(three, name)
        assert of_three.unpruned == 3 * of_one.unpruned
        assert of_three.pruned == pytest.approx(3 * of_one.pruned, rel=1e-3)
    assert three.visual_tokens == one.visual_tokens


def test_every_answer_has_the_same_length_and_no_visual_token(make: MadeRuns, monkeypatch) -> None:
    runs = make(new_tokens=6)
    config = runs.model.config
    wanted = [runs.model.generation_config.eos_token_id, config.image_token_id]
    answers = []
    generate = runs._generate

    def remember(number: int, **options: Any) -> Any:
        answers.append(generate(number, **options))
        return answers[-1]

    def favour(_module: Any, _arguments: Any, output: Any) -> None:
        output.logits[..., wanted] += 1e4  # the end first, then an image

    runs.prefills  # noqa: B018 (the prefills are counted before)
    monkeypatch.setattr(runs, "_generate", remember)
    handle = runs.model.register_forward_hook(favour)
    try:
        ((plain, short),) = runs.repeats(repeats=1, warmup=0)
    finally:
        handle.remove()
    prompt = runs.inputs[0]["input_ids"].shape[1]
    assert [answer.shape[1] - prompt for answer in answers] == [6, 6]
    assert all(config.image_token_id not in answer[0, prompt:] for answer in answers)
    for times in (plain, short):
        decoding = 5 * times.decode_ms_per_token
        assert times.total_ms == pytest.approx(times.time_to_first_token_ms + decoding)
        assert 0 < times.vision_ms + times.prefill_ms < times.time_to_first_token_ms
    assert (plain.pruning_overhead_ms, short.pruning_overhead_ms > 0) == (0, True)


def test_one_token_leaves_nothing_to_decode(make: MadeRuns) -> None:
    ((_, short),) = make(new_tokens=1).repeats(repeats=1, warmup=0)
    assert short.decode_ms_per_token is None


def test_the_peak_is_measured_on_gpus_only(make: MadeRuns, monkeypatch) -> None:
    runs, calls = make(), []
    monkeypatch.setattr(rotation, "forget_peak", lambda _: calls.append("forget"))
    monkeypatch.setattr(rotation, "peak_memory", lambda _: calls.append("peak") or 7)
    (on_cpu,) = runs.repeats(repeats=1, warmup=0)
    runs.on_gpu = True
    (on_gpu,) = runs.repeats(repeats=1, warmup=0)
    assert on_cpu[1].peak_memory_bytes is None
    assert on_gpu[0].peak_memory_bytes == on_gpu[1].peak_memory_bytes == 7
    assert calls[-4:] == ["forget", "peak"] * 2


def test_formulas_stand_in_for_an_unpruned_model_without_memory(make: MadeRuns) -> None:
    real, runs = make().counts(1), make()
    runs.failures[0] = "out of memory"
    counts = runs.counts(1)
    assert counts.kv_cache_bytes == real.kv_cache_bytes
    assert counts.prefill_flops_formula == real.prefill_flops_formula
    assert counts.prefill_flops_counted.unpruned is None


def test_a_mistake_of_the_unpruned_model_ends_everything(make: MadeRuns, monkeypatch) -> None:
    runs = make()

    def refuse(*_: Any, **__: Any) -> Any:
        raise UserError("no")

    monkeypatch.setattr(runs, "_generate", refuse)
    with pytest.raises(UserError, match="no"):
        list(runs.repeats(1, 0))
