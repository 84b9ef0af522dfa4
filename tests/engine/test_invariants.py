"""What holds for every pruner that is found in `conf/pruner`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from small import prompts, random_qwen25vl, single

from ivcp import pruned
from ivcp.core.pruner import Pruner

CONF = Path(__file__).parents[2] / "conf" / "pruner"
PRUNERS = sorted(path.stem for path in CONF.glob("*.yaml"))
ADAPT = {"sparsevlm": {"layers": [2, 3, 5]}, "none": {}}

BATCH = prompts([5, (6, 9), 7], [3, (4, 5), 12, (7, 3), 4], [9, (8, 8), 1], [14])


def build(name: str, ratio: float, **changes: Any) -> Pruner:
    """The pruner as configured on disk, with layers that fit the small model."""
    config = OmegaConf.merge(
        {"ratio": ratio}, {"pruner": OmegaConf.load(CONF / f"{name}.yaml")},
        {"pruner": ADAPT.get(name, {"layer": 3})}, {"pruner": changes},
    )  # fmt: skip
    return instantiate(config.pruner, _convert_="all")


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("rows", [slice(0, 1), slice(None)], ids=["single", "batch"])
def test_keep_everything_is_bit_identical(name: str, rows: slice, qwen: Any, greedy: Any) -> None:
    inputs = single(BATCH, 0) if rows.stop == 1 else BATCH.inputs
    plain = greedy(qwen, inputs)
    with pruned(qwen, build(name, 1.0)):
        same = greedy(qwen, inputs)
    assert torch.equal(plain.sequences, same.sequences)
    for first, second in zip(plain.logits, same.logits, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("name", PRUNERS)
def test_batch_equals_single(name: str, qwen: Any, greedy: Any) -> None:
    with pruned(qwen, build(name, 0.4)) as session:
        together = greedy(qwen, BATCH.inputs)
        kept, lengths = session.kept, session.cache_lengths
        for number in range(len(BATCH.lengths)):
            alone = greedy(qwen, single(BATCH, number))
            length = BATCH.lengths[number]
            tokens = together.sequences[number, -length - 5 :]
            assert torch.equal(alone.sequences[0], tokens)
            for first, second in zip(together.logits, alone.logits, strict=True):
                torch.testing.assert_close(first[number], second[0], atol=1e-4, rtol=0)
            if BATCH.spans[number]:
                assert torch.equal(session.kept[0], kept[number])
                assert [row[0] for row in session.cache_lengths] == [row[number] for row in lengths]


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("ratio", [0.5, 0.1, 0.01])
def test_kept_tokens_and_books(name: str, ratio: float, qwen: Any, greedy: Any) -> None:
    pruner = build(name, ratio)
    with pruned(qwen, pruner) as session:
        first = greedy(qwen, BATCH.inputs, 3)
        kept = session.kept
        second = greedy(qwen, BATCH.inputs, 3)
    assert torch.equal(first.sequences, second.sequences)
    for before, after in zip(kept, session.kept, strict=True):
        assert torch.equal(before, after)
    cut = all(stage.cut_cache for stage in pruner.stages())
    last = max((stage.layer for stage in pruner.stages()), default=0)
    for number, spans in enumerate(BATCH.spans):
        tokens = kept[number]
        assert torch.equal(tokens, tokens.unique()), "ascending and unique"
        inside = torch.cat([torch.arange(a, a + n) for a, n in spans] or [tokens])
        assert torch.isin(tokens, inside).all(), "only visual tokens are listed"
        for start, count in spans:
            here = ((tokens >= start) & (tokens < start + count)).sum()
            budget = count if name == "none" else max(1, round(ratio * count))
            assert here == budget, "the budget holds for each image"
        dropped = len(inside) - len(tokens) if spans else 0
        after = BATCH.lengths[number] - dropped
        assert session.layer_tokens[-1][number] == after
        assert session.cache_lengths[-1][number] == after
        first_layer = after if cut or last == 0 else BATCH.lengths[number]
        assert session.cache_lengths[0][number] == first_layer
    slots = sum(max(row) for row in session.cache_lengths)
    bytes_per_slot = 2 * len(BATCH.lengths) * 2 * 16 * 4  # keys and values, rows, heads, dim, fp32
    assert session.cache_bytes == slots * bytes_per_slot


@pytest.mark.parametrize("name", PRUNERS)
def test_backends_agree(name: str, greedy: Any) -> None:
    results = []
    for backend in ("sdpa", "eager"):
        model = random_qwen25vl(backend)
        with pruned(model, build(name, 0.4)) as session:
            results.append((greedy(model, BATCH.inputs), session.kept))
    (first, kept), (second, others) = results
    assert all(torch.equal(a, b) for a, b in zip(kept, others, strict=True))
    assert torch.equal(first.sequences, second.sequences)


@pytest.mark.parametrize("name", PRUNERS)
def test_nothing_is_left_behind(name: str, qwen: Any, greedy: Any) -> None:
    greedy(qwen, single(BATCH, 0))  # generate itself sets rope_deltas

    def snapshot() -> dict[str, Any]:
        return {
            path: (
                type(module), sorted(vars(module)), module.forward,
                {k: list(v) for k, v in vars(module).items() if k.startswith("_forward")},
            )
            for path, module in qwen.named_modules()
        }  # fmt: skip

    before = snapshot()
    with pruned(qwen, build(name, 0.4)):
        greedy(qwen, single(BATCH, 0))
        assert snapshot() != before, "the comparison sees hooks"
    assert snapshot() == before
    with pytest.raises(RuntimeError, match="inside"), pruned(qwen, build(name, 0.4)):
        greedy(qwen, single(BATCH, 0))
        raise RuntimeError("inside")
    assert snapshot() == before
