"""Ways to generate, on every family; `test_generation.py` has more of them on one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import pytest
import torch
from expected import EXPECTED
from families import needs_encoded_images
from test_invariants import build, with_keys
from transformers import DynamicCache

from ivcp import models as families
from ivcp import pruned
from ivcp.core.family import ModelFamily
from ivcp.core.selection import Selection
from ivcp.models import find_family
from ivcp.pruners.fastv import FastV
from ivcp.testing import EOS, IMAGE, PAD, SMALL, START, batch_of, model_of, single

QUIET = {"suppress_tokens": [EOS, IMAGE, START], "pad_token_id": PAD}
every_family = pytest.mark.parametrize("family", SMALL)
two_methods = pytest.mark.parametrize("name", ["ivcp", "sparsevlm"])


def test_every_family_is_among_them() -> None:
    found = set()
    for module in pkgutil.iter_modules(families.__path__, f"{families.__name__}."):
        for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(member, ModelFamily) and not inspect.isabstract(member):
                found.add(member)
    assert {small.family for small in SMALL.values()} == found


@every_family
@two_methods
def test_beams_of_a_batch_equal_beams_alone(family: str, name: str) -> None:
    model, batch = model_of(family), batch_of(family)
    needs_encoded_images(model)
    options = {"max_new_tokens": 4, "num_beams": 3, "num_return_sequences": 2, **QUIET}
    with pruned(model, build(name, 0.4, family)) as session:
        together = model.generate(**batch.inputs, do_sample=False, **options)
        for number, images in enumerate(batch.tokens):
            for beam in range(3):
                layout = session.layouts[3 * number + beam]
                for image, tokens in zip(layout.images, images, strict=True):
                    assert torch.equal(image.tokens, tokens)
        for number, length in enumerate(batch.lengths):
            alone = model.generate(**single(batch, number), do_sample=False, **options)
            assert torch.equal(alone, together[2 * number : 2 * number + 2, -length - 4 :])


@every_family
def test_layouts_and_the_parts_that_are_timed(family: str) -> None:
    """Grids are as the images were made; vision tower and decoder run where the family says."""
    model, batch = model_of(family), batch_of(family)
    ran: list[str] = []
    known = find_family(model)
    parts = {"vision": known.vision(model), "decoder": known.decoder(model)}
    handles = [
        part.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, part in parts.items()
    ]
    try:
        with torch.no_grad(), pruned(model, build("none", 1.0)) as session:
            model(**batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    assert ran == ["vision", "decoder"]
    grids = []
    for layout, tokens in zip(session.layouts, batch.tokens, strict=True):
        for image, indices in zip(layout.images, tokens, strict=True):
            assert torch.equal(image.tokens, indices)
            grids.append([(grid.kind, grid.rows, grid.columns) for grid in image.grids])
    assert grids == EXPECTED[family].grids


@every_family
@pytest.mark.parametrize("source", ["previous", "next"])
def test_attention_is_what_the_model_returns(family: str, source: Any) -> None:
    """What `provides` promises of a language model, against its eager attention."""
    model, inputs = model_of(family, "eager"), single(batch_of(family), 1)
    index = 1 if source == "previous" else 2
    before = sum(layer < index for layer in with_keys(family))  # only these return attention
    if "attention" not in find_family(model).provides(model.config):
        pytest.skip("its attention cannot be read")
    seen: list[tuple[int, torch.Tensor]] = []

    class Spy(FastV):
        signals_from = source

        def select(self, view: Any, stage: int) -> Selection:
            rows = view.sample.layout.text_queries(view.image)
            seen.append((view.image.start, view.attention(torch.arange(len(rows)))))
            return super().select(view, stage)

    with torch.no_grad():
        returned = model(**inputs, output_attentions=True).attentions
        with pruned(model, Spy(keep_ratio=0.5, layer=2)) as session:
            model(**inputs, use_cache=True)
    whole = returned[before][0].mean(0)  # (S, S)
    assert len(seen) == 2
    for image, (start, rows) in zip(session.layouts[0].images, seen, strict=True):
        assert image.start == start
        expected = whole[session.layouts[0].text_queries(image)][:, image.tokens]
        torch.testing.assert_close(rows, expected, atol=1e-6, rtol=1e-4)


@every_family
@two_methods
def test_without_a_cache(family: str, name: str) -> None:
    model, inputs = model_of(family), single(batch_of(family), 1)
    with torch.no_grad(), pruned(model, build(name, 0.4, family)):
        cached = model(**inputs, use_cache=True).logits
        plain = model(**inputs, use_cache=False).logits
    torch.testing.assert_close(cached, plain, atol=1e-4, rtol=1e-5)


TURNS = [(family, "sdpa", name) for family in SMALL for name in ("ivcp", "sparsevlm")]
TURNS += [("qwen25vl", "sdpa", name) for name in ("fastv", "random")]
TURNS += [("qwen25vl", "eager", name) for name in ("ivcp", "sparsevlm", "fastv", "random")]


@pytest.mark.parametrize(("family", "backend", "name"), TURNS)
def test_second_turn_sees_its_past_only(family: str, backend: str, name: str) -> None:
    """New text on a pruned cache, as one chunk, equals the same text token by token."""
    model, inputs = model_of(family, backend), single(batch_of(family), 1)
    turn = torch.randint(3, 80, (1, 9), generator=torch.Generator().manual_seed(3))
    logits = []
    with pruned(model, build(name, 0.4, family)), torch.no_grad():
        for chunks in ([turn], list(turn.split(1, dim=1))):
            cache = DynamicCache(config=model.config.text_config)
            model(**inputs, past_key_values=cache, use_cache=True)
            steps = [
                model(input_ids=chunk, past_key_values=cache, use_cache=True).logits
                for chunk in chunks
            ]
            logits.append(torch.cat(steps, 1))
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=1e-5)


@every_family
def test_structural_tokens_stay(family: str, greedy: Any) -> None:
    model, batch = model_of(family), batch_of(family)
    with pruned(model, build("random", 0.01, family)) as session:
        greedy(model, batch.inputs, 1)
    for layout, tokens, length, after in zip(
        session.layouts, batch.tokens, batch.lengths, session.layer_tokens[-1], strict=True
    ):
        visual = torch.cat([*tokens, torch.empty(0, dtype=torch.long)])
        assert not torch.isin(layout.markers, visual).any()
        assert after == length - len(visual) + len(tokens), "one token of each image is left"
        for image in layout.images:
            assert not torch.isin(layout.text_queries(image), layout.markers).any()


@every_family
def test_bfloat16(family: str, greedy: Any) -> None:
    model, batch = SMALL[family].model().bfloat16(), batch_of(family)
    with pruned(model, build("ivcp", 0.4, family)) as session:
        greedy(model, batch.inputs, 2)  # pixels in single precision, as processors give them
    for kept, images in zip(session.kept, batch.tokens, strict=True):
        assert len(kept) == sum(round(0.4 * len(tokens)) for tokens in images)


@pytest.mark.parametrize("layer", [1, 2, 3, 4, 5])
def test_deepstack_stays_aligned(layer: int, greedy: Any) -> None:
    """What later layers add must reach the token it belongs to, wherever the cut lies."""
    model, inputs = model_of("qwen3vl"), single(batch_of("qwen3vl"), 1)
    features: list[Any] = []
    handle = model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: features.append(kwargs.get("deepstack_visual_embeds")),
        with_kwargs=True,
    )
    try:
        with pruned(model, build("random", 0.5, layer=layer)) as session:
            pruned_logits = greedy(model, inputs, 1).logits[0]
    finally:
        handle.remove()
    assert len(features[0]) == 4
    assert session.layer_tokens[layer][0] < session.layer_tokens[0][0]
    kept = session.kept[0]
    visual = torch.cat(batch_of("qwen3vl").tokens[1])
    dropped = visual[~torch.isin(visual, kept)]
    length = inputs["input_ids"].shape[1]
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    mask[:, dropped] = False
    mask |= torch.eye(length, dtype=torch.bool)

    def hide(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "attention_mask": mask[None, None]}

    later = model.model.language_model.layers[layer:]
    handles = [one.register_forward_pre_hook(hide, with_kwargs=True) for one in later]
    try:
        with torch.no_grad():
            expected = model(**inputs, use_cache=False).logits[:, -1]
    finally:
        for handle in handles:
            handle.remove()
    torch.testing.assert_close(pruned_logits, expected, atol=1e-4, rtol=1e-5)
