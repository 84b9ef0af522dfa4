"""Replaced and merged states, against a pass that keeps every token and shows each what is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from oracle import attended, exact_recurrence, teacher_forced
from test_oracle import exact_model
from torch import Tensor

from ivcp import pruned
from ivcp.core.pruner import Pruner, Stage
from ivcp.core.selection import Selection
from ivcp.core.view import View
from ivcp.testing import SMALL, prompts, single


@dataclass(frozen=True, kw_only=True)
class Rewriting(Pruner):
    """Every second token stays, with other states; some of the rest are merged, in front or behind.

    Attributes:
        layer: Before which.
        earlier: Whether the caches of earlier layers are pruned too.
        before: Merged tokens that stand in front.
    """

    layer: int = 3
    earlier: bool = True
    before: int = 1

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(self.layer, frozenset({"hidden"}), prune_earlier_kv=self.earlier),)

    def select(self, view: View, stage: int) -> Selection:
        states = view.hidden()
        every = torch.arange(len(states))
        keep, merged = every[::2], every[1::4]
        return Selection(
            keep,
            states=states[keep] * 1.5 + 0.1,
            merged_at=merged,
            merged_states=states[merged] + states[keep[: len(merged)]],
            merged_before=self.before,
        )


def expected_logits(
    model: Any,
    inputs: dict[str, Tensor],
    sequences: Tensor,
    images: list[Tensor],
    method: Rewriting,
) -> Tensor:
    """Logits of one pass without pruning: states are rewritten in place, masks do the rest."""
    prompt, length = inputs["input_ids"].shape[1], sequences.shape[1]
    place = torch.arange(length).double()  # in the order in which tokens stand behind the stage
    gone = torch.zeros(length, dtype=torch.bool)
    rewritten: list[tuple[Tensor, Tensor, Tensor]] = []
    for tokens in images:
        keep, merged = tokens[::2], tokens[1::4]
        gone[tokens] = True
        gone[keep] = gone[merged] = False
        front, back = merged[: method.before], merged[method.before :]
        place[front] = tokens[0] - 1 + torch.linspace(0.1, 0.5, len(front)).double()
        place[back] = tokens[-1] + torch.linspace(0.1, 0.5, len(back)).double()
        rewritten.append((tokens, keep, merged))
    causal = attended(model, inputs, length)
    mutual = causal & causal.mT  # whatever the order
    order = place.argsort()

    def order_of(index: int) -> Tensor:
        return order[~gone[order]] if index >= method.layer else torch.arange(length)

    def hook(index: int) -> Any:
        mask = causal.clone()
        if index >= method.layer:
            mask = (place[:, None] >= place) | mutual
            mask[:, gone] = False
        elif method.earlier:
            mask[prompt:, gone] = False
        mask |= torch.eye(length, dtype=torch.bool)

        def change(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            hidden = args[0] if args else kwargs["hidden_states"]
            if index == method.layer:
                old, hidden = hidden, hidden.clone()
                for _, keep, merged in rewritten:
                    hidden[0, keep] = old[0, keep] * 1.5 + 0.1
                    hidden[0, merged] = old[0, merged] + old[0, keep[: len(merged)]]
            kwargs = {**kwargs, "attention_mask": mask[None, None]}
            if args:
                return (hidden, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": hidden}

        return change

    return teacher_forced(model, inputs, sequences, hook, order_of)


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    with exact_recurrence():
        yield


WITHOUT_DEEPSTACK = [
    name for name, small in SMALL.items()
    if "deepstack_visual_indexes" not in small.settings["vision_config"]
]  # fmt: skip


@pytest.mark.parametrize("family", WITHOUT_DEEPSTACK)
@pytest.mark.parametrize(
    "method",
    [Rewriting(), Rewriting(earlier=False, before=0), Rewriting(layer=0, before=2)],
    ids=["pruned caches", "whole caches", "before layer 0"],
)
def test_states_are_those_of_the_oracle(family: str, method: Rewriting, greedy: Any) -> None:
    model = exact_model(family)
    _, b, c, _ = SMALL[family].images
    batch = prompts([3, b, 12, c, 4], family=family)
    inputs = single(batch, 0)
    inputs["pixel_values"] = inputs["pixel_values"].double()
    with pruned(model, method) as session:
        out = greedy(model, inputs, 5)
    merged = session.reasons[0].count("merged")
    assert merged == sum(len(tokens[1::4]) for tokens in batch.tokens[0])
    expected = expected_logits(model, inputs, out.sequences, batch.tokens[0], method)
    found = torch.cat(out.logits)
    torch.testing.assert_close(found, expected.to(found.dtype), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", SMALL)
def test_a_batch_equals_its_rows(family: str, greedy: Any) -> None:
    model = exact_model(family)
    a, b, c, d = SMALL[family].images
    batch = prompts([5, a, 7], [3, b, 12, c, 4], [9, d, 1], family=family)
    inputs = {**batch.inputs, "pixel_values": batch.inputs["pixel_values"].double()}
    with pruned(model, Rewriting()):
        together = greedy(model, inputs, 4)
        for number in range(3):
            alone = single(batch, number)
            alone["pixel_values"] = alone["pixel_values"].double()
            for first, second in zip(together.logits, greedy(model, alone, 4).logits, strict=True):
                torch.testing.assert_close(first[number], second[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", SMALL)
def test_images_of_a_sample_can_share_a_budget(family: str, greedy: Any) -> None:
    """The first image of each sample stays whole, of the others one token."""

    class Shared(Rewriting):
        def select_sample(self, views: Any, stage: int) -> list[Selection]:
            counts = [len(view.index) if not number else 1 for number, view in enumerate(views)]
            return [Selection(torch.arange(count)) for count in counts]

    model, (a, b, c, _) = exact_model(family), SMALL[family].images
    batch = prompts([5, a, 7], [3, b, 12, c, 4], family=family)
    inputs = {**batch.inputs, "pixel_values": batch.inputs["pixel_values"].double()}
    with pruned(model, Shared()) as session:
        greedy(model, inputs, 2)
    first, second = batch.tokens[1]
    assert torch.equal(session.kept[0], batch.tokens[0][0])
    assert torch.equal(session.kept[1], torch.cat([first, second[:1]]))
