"""Layers that run once before layer 0: their signals, what they leave alone, and what they cost."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from test_invariants import build, kinds_of, with_keys

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner, Stage
from ivcp.core.selection import Selection
from ivcp.core.view import LAYER_SIGNALS, View
from ivcp.measure.flops import DecoderSizes, prefill_flops
from ivcp.models import find_family
from ivcp.pruners.ivcp import IVCPrune
from ivcp.testing import SMALL, batch_of, model_of, single

every_family = pytest.mark.parametrize("family", SMALL)
Signals = dict[tuple[int, int], list[torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Reading(Pruner):
    """Reads all signals of the last layer of a first pass, and keeps half of the tokens.

    Attributes:
        layers: Of the first pass.
        signals: What it read, by row and start of each image.
    """

    layers: int
    signals: Any

    def stages(self) -> tuple[Stage, ...]:
        return (Stage(0, LAYER_SIGNALS, first_pass=self.layers),)

    def select(self, view: View, stage: int) -> Selection:
        rows = torch.arange(len(view.queries))  # type: ignore[attr-defined]
        key = view.batch, view.image.start  # type: ignore[attr-defined]
        self.signals[key] = [
            *view.values(), view.attention(rows), view.last_attention(), *view.keys()
        ]  # fmt: skip
        return Selection(torch.arange(0, len(view.index), 2))


@every_family
@pytest.mark.parametrize("layers", [1, 3, 6])
def test_signals_are_those_of_a_plain_pass(family: str, layers: int) -> None:
    """In a padded batch, against cache and attention maps of each prompt alone."""
    model, batch, known = model_of(family, "eager"), batch_of(family), SMALL[family].family()
    signals: Signals = {}
    reading = Reading(layers=layers, signals=signals)
    if kinds_of(family)[layers - 1] == "linear":
        with pytest.raises(UserError, match=f"got first pass of {layers}"):
            pruned(model, reading).__enter__()
        return
    with torch.no_grad(), pruned(model, reading) as session:
        model(**batch.inputs, use_cache=True)
    assert len(signals) == sum(map(len, batch.tokens))
    for (number, start), found in signals.items():
        with torch.no_grad():
            plain = model(**single(batch, number), use_cache=True, output_attentions=True)
        cached = plain.past_key_values.layers[layers - 1]
        layer = known.decoder(model).layers[layers - 1]
        states = known.cached_states(layer, cached.keys, cached.values)
        keys, values = states[0][0], states[1][0]
        attention = plain.attentions[with_keys(family).index(layers - 1)][0].mean(0)  # (S, S)
        layout = session.layouts[number]
        (image,) = (image for image in layout.images if image.start == start)
        queries, tokens = layout.text_queries(image), image.tokens
        expected = [
            values[:, queries], values[:, tokens], attention[queries][:, tokens],
            attention[-1, tokens], keys[:, queries], keys[:, tokens],
        ]  # fmt: skip
        if batch.lengths[number] < max(batch.lengths):
            del expected[4:]  # models with one axis count padding, which turns their keys further
        for one, other in zip(found, expected, strict=False):
            torch.testing.assert_close(one, other, atol=6e-5, rtol=1e-4)


@every_family
@pytest.mark.parametrize("layer", [1, 3, 5])
@pytest.mark.parametrize("use_cache", [True, False])
def test_it_keeps_what_the_single_selection_keeps(family: str, layer: int, use_cache: bool) -> None:
    """Both choose by the values of the same layer; only what runs on the others differs."""
    model, batch, kept = model_of(family), batch_of(family), []
    if kinds_of(family)[layer - 1] == "linear":
        pytest.skip("it has no values to choose by")
    for name in ("ivcp", "ivcp_two_pass"):
        with torch.no_grad(), pruned(model, build(name, 0.4, layer=layer)) as session:
            model(**batch.inputs, use_cache=use_cache)
        kept.append(session.kept)
    assert all(map(torch.equal, *kept))
    assert session.first_pass_tokens == [batch.lengths] * layer
    pruned_lengths = [
        length - sum(map(len, images)) + len(left)
        for length, images, left in zip(batch.lengths, batch.tokens, session.kept, strict=True)
    ]
    assert session.layer_tokens == [pruned_lengths] * 6


@every_family
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("first", ["none", "fastv", "random"])
def test_it_reads_earlier_turns_and_leaves_their_cache_alone(
    family: str, backend: str, first: str
) -> None:
    model, batch, kept = model_of(family, backend), batch_of(family), []
    turn = single(batch, 1)
    width = turn["input_ids"].shape[1]
    with torch.no_grad(), pruned(model, build(first, 0.4, family)):
        cache = model(**single(batch, 0), use_cache=True).past_key_values
    past, axes = cache.get_seq_length(), find_family(model).position_axes(model)
    positions = torch.arange(past, past + width).expand(axes, 1, -1)
    turn["position_ids"] = positions if axes > 1 else positions[0]
    del turn["attention_mask"]
    for name in ("ivcp", "ivcp_two_pass"):
        with torch.no_grad(), pruned(model, build(name, 0.4, layer=3)) as session:
            model(**turn, past_key_values=deepcopy(cache), use_cache=True)
        kept.append(session.kept[0])
    assert torch.equal(*kept)
    assert session.cache_lengths[-1][0] > session.layer_tokens[-1][0], "earlier turns are there"


def test_the_model_returns_no_states_of_the_first_pass() -> None:
    inputs = single(batch_of("qwen25vl"), 0)
    model = model_of("qwen25vl", "eager")
    options = {"output_hidden_states": True, "output_attentions": True, "use_cache": True}
    with torch.no_grad(), pruned(model, build("ivcp_two_pass", 0.4)) as session:
        out = model(**inputs, **options)
    (width,) = session.layer_tokens[0]
    assert [states.shape[1] for states in out.hidden_states] == [width] * 7
    assert [attention.shape[2:] for attention in out.attentions] == [(width, width)] * 6


def test_flops_of_the_published_sizes() -> None:
    """Prefill FLOPs of Qwen2.5-VL-7B with 100 tokens of text; attention counts half, as causal."""
    hidden, heads, groups, dim, mlp, layers = 3584, 28, 4, 128, 18944, 28
    weights = 2 * hidden * heads * dim + 2 * hidden * groups * dim + 3 * hidden * mlp
    sizes = DecoderSizes(
        linear=(weights,) * layers, attention=(heads * dim,) * layers, cached=(1,) * layers
    )
    expected = {  # before layer 0, two passes with 2 layers and with 16, in percent
        (1000, 0.5): (54.1, 61.3, 111.3),
        (1000, 0.25): (31.5, 38.6, 88.6),
        (2500, 0.5): (51.0, 58.1, 108.1),
        (2500, 0.25): (27.1, 34.3, 84.3),
    }
    for (visual, ratio), percentages in expected.items():
        full, left = visual + 100, round(ratio * visual) + 100
        for count, percent in zip((0, 2, 16), percentages, strict=True):
            pruner = IVCPrune(keep_ratio=ratio, layer=count or 1, two_pass=bool(count))
            first_pass = [full] * pruner.first_pass()
            flops = prefill_flops([left] * layers, sizes, first_pass)
            assert 100 * flops / prefill_flops([full] * layers, sizes) == pytest.approx(
                percent, abs=0.06
            )


def test_auto_is_two_layers() -> None:
    pruner = IVCPrune(two_pass=True).fitted("qwen2_5_vl", 28)
    assert pruner.stages() == (Stage(0, IVCPrune.needs, first_pass=2),)
    assert IVCPrune(two_pass=True).fitted("llama", 1).first_pass() == 1


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        (IVCPrune(layer=7, two_pass=True), "first pass of IVCPrune must have 1 .. 6 .* got 7"),
        (IVCPrune(layer=0, two_pass=True), r"layer must lie in 1 \.\. 5"),
    ],
)
def test_a_first_pass_that_the_model_has_not_is_refused(
    method: IVCPrune, reason: str, qwen: Any
) -> None:
    with pytest.raises(UserError, match=reason), pruned(qwen, method):
        pass
