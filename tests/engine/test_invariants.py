"""What holds for every pruner that is found in `conf/pruner` and acts inside `pruned`."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from ivcp import pruned
from ivcp.core.layer_kinds import LayerKind, layer_kinds
from ivcp.core.pruner import Pruner
from ivcp.testing import SMALL, batch_of, model_of, single

CONF = Path(__file__).parents[2] / "conf" / "pruner"
PRUNERS = sorted(
    path.stem
    for path in CONF.glob("*.yaml")
    if not get_class(OmegaConf.load(path)._target_).before_processor  # they act before `pruned`
)
SETTINGS = Path(__file__).parents[1] / "pruners" / "settings"
PAIRS = [(family, name) for family in SMALL for name in PRUNERS]
UNPRUNED: dict[tuple[str, int | None], Any] = {}
"""What `generate` gives without pruning, by family and rows; the same for every pruner."""

every_pair = pytest.mark.parametrize(("family", "name"), PAIRS)


def on_disk(name: str) -> Any:
    """A pruner's yaml, filled in where it names another one."""
    config = OmegaConf.load(CONF / f"{name}.yaml")
    for part in config.pop("defaults", []):
        if part != "_self_":
            ((place, other),) = part.items()
            OmegaConf.update(config, place.removeprefix("/pruner@"), on_disk(other))
    return config


def settings(name: str, kind: str) -> dict[str, Any]:
    """Settings of a method for tests, from its own file in `tests/pruners/settings`, if it has one.

    Args:
        name: Stem of the method.
        kind: "small" if its own do not fit towers of 2 layers and images of 9 to 100 tokens, or
            "unmerged" for those that merge no tokens.
    """
    path = SETTINGS / f"{name}.yaml"
    found = OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else {}
    return found.get(kind, {})


def build(name: str, ratio: float, family: str = "qwen25vl", **changes: Any) -> Pruner:
    """The pruner as configured on disk, with layers that fit the small models."""
    return _build(name, ratio, kinds_of(family), json.dumps(changes))


@cache
def kinds_of(family: str) -> tuple[LayerKind, ...]:
    """The kind of each decoder layer of a small model."""
    return layer_kinds(SMALL[family].config())


def with_keys(family: str) -> list[int]:
    """The decoder layers of a small model that have keys and values."""
    return [index for index, kind in enumerate(kinds_of(family)) if kind != "linear"]


@cache  # a pruner has no state, and reading a configuration takes as long as a small prefill
def _build(name: str, ratio: float, kinds: tuple[LayerKind, ...], changes: str) -> Pruner:
    config = OmegaConf.merge(
        {"ratio": ratio},
        {"pruner": on_disk(name)},
        {"pruner": settings(name, "small")},
        {"pruner": json.loads(changes)},
    )
    return instantiate(config.pruner, _convert_="all").fitted("", 6, kinds=kinds)


@pytest.mark.parametrize("path", sorted(SETTINGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_settings_for_tests_are_those_of_a_method(path: Path) -> None:
    assert path.stem in PRUNERS
    kinds = OmegaConf.load(path)
    assert set(kinds) <= {"small", "unmerged"}
    for changes in kinds.values():
        assert set(changes) <= set(on_disk(path.stem))


@every_pair
@pytest.mark.parametrize("rows", [slice(0, 1), slice(None)], ids=["single", "batch"])
def test_keep_everything_is_bit_identical(family: str, name: str, rows: slice, greedy: Any) -> None:
    model, batch = model_of(family), batch_of(family)
    inputs = single(batch, 0) if rows.stop == 1 else batch.inputs
    if (family, rows.stop) not in UNPRUNED:
        UNPRUNED[family, rows.stop] = greedy(model, inputs)
    plain = UNPRUNED[family, rows.stop]
    with pruned(model, build(name, 1.0, family)):
        same = greedy(model, inputs)
    assert torch.equal(plain.sequences, same.sequences)
    for first, second in zip(plain.logits, same.logits, strict=True):
        assert torch.equal(first, second)


@every_pair
def test_batch_equals_single(family: str, name: str, greedy: Any) -> None:
    model, batch = model_of(family), batch_of(family)
    with pruned(model, build(name, 0.4, family)) as session:
        together = greedy(model, batch.inputs)
        kept, lengths = session.kept, session.cache_lengths
        for number in range(len(batch.lengths)):
            alone = greedy(model, single(batch, number))
            length = batch.lengths[number]
            tokens = together.sequences[number, -length - 3 :]
            assert torch.equal(alone.sequences[0], tokens)
            for first, second in zip(together.logits, alone.logits, strict=True):
                torch.testing.assert_close(first[number], second[0], atol=1e-4, rtol=0)
            if batch.tokens[number]:
                assert torch.equal(session.kept[0], kept[number])
                assert [row[0] for row in session.cache_lengths] == [row[number] for row in lengths]


@every_pair
@pytest.mark.parametrize("ratio", [0.5, 0.1, 0.01])
def test_kept_tokens_and_bookkeeping(family: str, name: str, ratio: float, greedy: Any) -> None:
    model, batch = model_of(family), batch_of(family)
    pruner = build(name, ratio, family)
    with pruned(model, pruner) as session:
        first = greedy(model, batch.inputs)
        kept = session.kept
        second = greedy(model, batch.inputs, 1)
    assert torch.equal(first.sequences[:, :-2], second.sequences)
    for before, after in zip(kept, session.kept, strict=True):
        assert torch.equal(before, after)
    pruning = [stage.layer for stage in pruner.stages() if stage.prune_earlier_kv and stage.layer]
    for number, images in enumerate(batch.tokens):
        tokens = kept[number]
        assert torch.equal(tokens, tokens.unique()), "ascending and unique"
        inside = torch.cat(images or [tokens])
        assert torch.isin(tokens, inside).all(), "only visual tokens are listed"
        for image in images:
            budget = len(image) if name == "none" else max(1, round(ratio * len(image)))
            here = torch.isin(tokens, image).sum()
            assert here == budget, "the budget holds for each image"
        dropped = len(inside) - len(tokens) if images else 0
        after = batch.lengths[number] - dropped
        assert session.layer_tokens[-1][number] == after
        assert session.cache_lengths[-1][number] == after
        first, *_ = with_keys(family)
        first_layer = session.layer_tokens[pruning[-1] if pruning else first][number]
        assert session.cache_lengths[first][number] == first_layer
    slots = sum(max(row) for row in session.cache_lengths)
    width = slots * SMALL[family].cache_width + SMALL[family].state_width
    assert session.cache_bytes == len(batch.lengths) * width * 4


@every_pair
def test_backends_agree(family: str, name: str, greedy: Any) -> None:
    batch = batch_of(family)
    results = []
    for backend in ("sdpa", "eager"):
        model = model_of(family, backend)
        with pruned(model, build(name, 0.4, family)) as session:
            results.append((greedy(model, batch.inputs), session.kept))
    (first, kept), (second, others) = results
    assert all(torch.equal(a, b) for a, b in zip(kept, others, strict=True))
    assert torch.equal(first.sequences, second.sequences)


@pytest.mark.parametrize("name", [name for name in PRUNERS if "renumber" in on_disk(name)])
def test_a_field_to_renumber_does(name: str) -> None:
    assert build(name, 0.4, renumber=True).renumbers()
    assert not build(name, 0.4, renumber=False).renumbers()


@every_pair
def test_nothing_is_left_behind(family: str, name: str, greedy: Any) -> None:
    model, batch = model_of(family), batch_of(family)
    greedy(model, single(batch, 0), 1)  # generate itself sets rope_deltas

    def snapshot() -> dict[str, Any]:
        return {
            path: (
                type(module), sorted(vars(module)), module.forward,
                {k: list(v) for k, v in vars(module).items() if k.startswith("_forward")},
            )
            for path, module in model.named_modules()
        }  # fmt: skip

    before = snapshot()
    with pruned(model, build(name, 0.4, family)):
        greedy(model, single(batch, 0), 2)
        assert snapshot() != before, "the comparison sees hooks"
    assert snapshot() == before
    with pytest.raises(RuntimeError, match="inside"), pruned(model, build(name, 0.4, family)):
        greedy(model, single(batch, 0), 2)
        raise RuntimeError("inside")
    assert snapshot() == before
