"""DART: the release's sets, its rule step by step, and the signals that it alone reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from given import given_view
from test_golden import cases, read
from torch import Tensor, nn
from transformers import DynamicCache

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.selection import Selection
from ivcp.core.view import View
from ivcp.models import find_family
from ivcp.pruners.dart import DART
from ivcp.testing import SMALL, batch_of, model_of, single


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, kw_only=True)
class InOrder(DART):
    """Lets the pivots pick in a given order."""

    order: tuple[int, ...]

    def in_turn(self, pivots: Tensor) -> Tensor:
        return pivots[list(self.order)]


@pytest.mark.parametrize("folder", cases("dart"), ids=lambda folder: folder.name)
def test_the_release_keeps_the_same_tokens(folder: Path) -> None:
    case, golden = read(folder)
    start, stop = case["start"], case["start"] + case["N"]
    keys, states = golden["keys"][0], golden["normed_hidden"][0]
    ascending = [
        pivot for name in ("image_pivots", "text_pivots") for pivot in sorted(golden[name].tolist())
    ]
    order = tuple(ascending.index(pivot) for pivot in golden["pivot_order"].tolist())
    seen: list[Tensor] = []

    class Spy(InOrder):
        def in_turn(self, pivots: Tensor) -> Tensor:
            seen.append(pivots)
            return super().in_turn(pivots)

    view = given_view(
        (1, case["N"]),
        keys=(keys[:, stop:], keys[:, start:stop]),
        hidden=states[start:stop],
        text_hidden=states[stop:],
        final_norm=lambda given: given,
    )
    pruner = Spy(
        keep_ratio=case["n_retained"] / case["N"],
        image_pivots=case["pi"],
        text_pivots=case["pt"],
        order=order,
    )
    selection = pruner.select(view, 0)
    assert torch.equal(seen[0], states[ascending])
    assert torch.equal(selection.keep + start, golden["retained_sorted"])
    pivots = selection.keep[selection.reasons["pivot"]] + start
    assert pivots.tolist() == sorted(golden["image_pivots"].tolist())


def plain(
    keys: Tensor, text_keys: Tensor, states: Tensor, text: Tensor, count: int, pivots: Any
) -> tuple[list[int], list[int]]:
    """Kept tokens and pivots of the image, one pick after the other."""

    def longest(given: Tensor, number: int) -> list[int]:
        lengths = [given[:, token].abs().sum().item() for token in range(given.shape[1])]
        return sorted(sorted(range(len(lengths)), key=lambda one: -lengths[one])[:number])

    first = longest(keys, min(pivots[0], count))
    turns = [states[pivot] for pivot in first]
    turns += [text[pivot] for pivot in longest(text_keys, pivots[1])]
    shares = [0] * len(turns)
    for pick in range(count - len(first)):
        shares[pick % len(turns)] += 1
    kept = list(first)
    for pivot, share in zip(turns, shares, strict=True):
        for _ in range(share):
            rest = [token for token in range(len(states)) if token not in kept]
            cosines = [torch.cosine_similarity(pivot, states[one], 0).item() for one in rest]
            kept.append(rest[cosines.index(min(cosines))])
    return sorted(kept), first


@pytest.mark.parametrize("queries", [1, 3, 20], ids=lambda count: f"{count} of text")
@pytest.mark.parametrize("grids", [[(5, 6)], [(3, 3), (4, 4), (2, 5)]], ids=["one", "tiles"])
@pytest.mark.parametrize("pivots", [(4, 4), (1, 0), (0, 2), (7, 1)], ids=str)
def test_the_plain_rule(grids: list[tuple[int, int]], pivots: Any, queries: int) -> None:
    count = sum(rows * columns for rows, columns in grids)
    for seed in range(2):
        keys, text_keys = drawn(2, count, 6, seed=seed), drawn(2, queries, 6, seed=seed + 10)
        states, text = drawn(count, 12, seed=seed + 20), drawn(queries, 12, seed=seed + 30)
        view = given_view(
            *grids, keys=(text_keys, keys), hidden=states, text_hidden=text,
            final_norm=lambda given: given * torch.linspace(1, 3, 12) + 0.5,
        )  # fmt: skip
        for ratio in (0.01, 0.1, 0.37, 0.9):
            pruner = DART(keep_ratio=ratio, image_pivots=pivots[0], text_pivots=pivots[1])
            selection = pruner.select(view, 0)
            normed = [given * torch.linspace(1, 3, 12) + 0.5 for given in (states, text)]
            budget = max(1, round(ratio * count))
            kept, first = plain(keys, text_keys, *normed, budget, pivots)
            assert selection.keep.tolist() == kept
            assert selection.keep[selection.reasons["pivot"]].tolist() == first


@pytest.mark.parametrize("family", SMALL)
def test_keys_and_states_are_the_models_own(family: str) -> None:
    """Against the cache and hidden states of an unpruned run, and the language model's norm."""
    model, layer = model_of(family), 2
    inputs = single(batch_of(family), 1)
    adapter = find_family(model)
    decoder = adapter.decoder(model)
    cache = DynamicCache(config=model.config.get_text_config())
    entering: list[Tensor] = []
    handle = decoder.layers[layer].input_layernorm.register_forward_pre_hook(
        lambda _, args: entering.append(args[0].clone())
    )
    with torch.no_grad():
        model(**inputs, past_key_values=cache, use_cache=True)
    handle.remove()
    stored = cache.layers[layer - 1]
    keys, _ = adapter.cached_states(decoder.layers[layer - 1], stored.keys, stored.values)
    checked = []

    class Spy(DART):
        def select(self, view: View, stage: int) -> Selection:
            visual, texts = view.image.tokens, view.queries  # type: ignore[attr-defined]
            text_keys, visual_keys = view.keys()
            torch.testing.assert_close(text_keys, keys[0][:, texts])
            torch.testing.assert_close(visual_keys, keys[0][:, visual])
            torch.testing.assert_close(view.text_hidden(), entering[0][0, texts])
            torch.testing.assert_close(view.hidden(), entering[0][0, visual])
            normed = decoder.norm(entering[0])[0, visual]
            torch.testing.assert_close(view.final_norm(view.hidden()), normed)
            checked.append(len(visual))
            return super().select(view, stage)

    with torch.no_grad(), pruned(model, Spy(keep_ratio=0.4, layer=layer)):
        model(**inputs)
    assert len(checked) == len(batch_of(family).tokens[1])


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [({"image_pivots": -1}, "image_pivots and text_pivots must not be negative"),
     ({"image_pivots": 0, "text_pivots": 0}, "image_pivots and text_pivots must not be negative"),
     ({"text_pivots": 1.5}, "text_pivots must be")],
)  # fmt: skip
def test_bad_input(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=f"^{sentence}"):
        DART(**fields)


def test_there_is_no_layer_before_the_first() -> None:
    with pytest.raises(UserError, match=r"layer must lie in 1 \.\. 5"):
        pruned(model_of("llava15"), DART(layer=0)).__enter__()


def test_a_final_norm_of_another_name_and_none() -> None:
    adapter, states = find_family(model_of("llava15")), drawn(3, 16)
    decoder = nn.Module()
    with pytest.raises(UserError, match=r"^Module has no final norm of a known name"):
        adapter.final_norm(decoder, states)
    decoder.final_layernorm = nn.LayerNorm(16)  # as Phi's
    assert torch.equal(adapter.final_norm(decoder, states), decoder.final_layernorm(states))


def test_a_final_norm_that_is_offloaded() -> None:
    accelerate = pytest.importorskip("accelerate")
    model, inputs = SMALL["llava15"].model(), single(batch_of("llava15"), 1)
    kept = []
    for offloads in (False, True):
        if offloads:
            accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
            assert model.model.language_model.norm.weight.device.type == "meta"
        with torch.no_grad(), pruned(model, DART(keep_ratio=0.4)) as session:
            model(**inputs)
        kept.append(session.kept[0])
    assert torch.equal(*kept)
