"""Pruned generation equals a model that keeps all tokens and hides the dropped ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from oracle import exact_recurrence, hidden_tokens_logits
from test_invariants import PAIRS, PRUNERS, build, on_disk, settings

from ivcp import pruned
from ivcp.models import find_family
from ivcp.testing import SMALL, prompts, single

MAY_LEAVE_CACHES = [name for name in PRUNERS if "prune_earlier_kv" in on_disk(name)]
CASES = [(*pair, True) for pair in PAIRS]
CASES += [(*pair, False) for pair in PAIRS if pair[1] in MAY_LEAVE_CACHES]
SAMPLES = {
    "one image": lambda a, b, c, _: [5, a, 7],
    "two images": lambda a, b, c, _: [3, b, 12, c, 4],
}


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    with exact_recurrence():
        yield


@cache
def exact_model(family: str) -> Any:
    """The random model in double precision, where rounding does not hide a difference."""
    model = SMALL[family].model().double()
    model.set_experts_implementation("eager")  # the others know no double precision
    return model


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize(("family", "name", "cut"), CASES)
def test_equals_hiding(family: str, name: str, sample: str, cut: bool, greedy: Any) -> None:
    exact = exact_model(family)
    changes = dict(settings(name, "unmerged"))
    if name in MAY_LEAVE_CACHES:
        changes["prune_earlier_kv"] = cut
    pruner = build(name, 0.4, family, **changes)
    batch = prompts(SAMPLES[sample](*SMALL[family].images), family=family)
    inputs = single(batch, 0)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    with pruned(exact, pruner) as session:
        out = greedy(exact, inputs, 4)
        final = session.kept[0]
    visual = torch.cat(batch.tokens[0])
    earlier = range(len(pruner.stages()) - 1)
    survivors = [*(_after(pruner, stage, exact, greedy, inputs) for stage in earlier), final]
    hidden = []
    for layer in range(len(find_family(exact).decoder(exact).layers)):
        before = [k for k, stage in enumerate(pruner.stages()) if stage.layer <= layer]
        here = survivors[before[-1]] if before else visual
        later = [
            k for k, stage in enumerate(pruner.stages())
            if stage.layer > layer and stage.prune_earlier_kv
        ]  # fmt: skip
        stays = survivors[later[-1]] if later else here
        hidden.append((_without(visual, here), _without(visual, stays)))
    expected = hidden_tokens_logits(exact, inputs, out.sequences, hidden)
    torch.testing.assert_close(
        torch.cat(out.logits), expected.to(out.logits[0].dtype), atol=1e-5, rtol=0
    )


def _without(visual: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    return visual[~torch.isin(visual, kept)]


def _after(pruner: Any, stage: int, model: Any, greedy: Any, inputs: Any) -> torch.Tensor:
    """Survivors of the stages up to `stage`, read off a run in which later stages keep all."""

    class Shortened(type(pruner)):  # type: ignore[misc]
        def select(self, view: Any, number: int) -> Any:
            found = super().select(view, number)
            if number <= stage:
                return found
            return type(found)(torch.arange(len(view.index)))

    shortened = object.__new__(Shortened)
    shortened.__dict__.update(vars(pruner))
    with pruned(model, shortened) as session:
        greedy(model, inputs, 1)
        return session.kept[0]
