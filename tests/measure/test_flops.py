import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import _get_current_dispatch_mode
from untrained import save_untrained

from ivcp.datasets.shapes import Shapes
from ivcp.engine.attach import open_session
from ivcp.measure.flops import DecoderSizes, count_flops, prefill_flops
from ivcp.models import find_family
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning
from ivcp.pruners.random import RandomPruning
from ivcp.testing import SMALL, prompts


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> Qwen25VL:
    folder = save_untrained(tmp_path_factory.mktemp("tiny") / "model", layers=4)
    return Qwen25VL(path=str(folder), dtype="float32")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "pruner",
    [
        NoPruning(),
        RandomPruning(keep_ratio=0.3, layer=1),
        IVCPrune(keep_ratio=0.5, layer=2),
        IVCPrune(keep_ratio=0.3, layer=2, two_pass=True),
    ],
    ids=["none", "random", "ivcp", "two_pass"],
)
def test_formula_agrees_with_what_pytorch_counts(family, pruner, attention) -> None:
    model, processor = family.load()
    model.set_attn_implementation(attention)
    encoded = family.encode(processor, [Shapes(task="grounding")[0]])
    decoder = family.decoder(model)
    hooks_before = [len(module._forward_hooks) for module in model.modules()]
    with torch.inference_mode(), open_session(model, family, pruner) as session:
        counted = count_flops(
            decoder, lambda: model.generate(**encoded.inputs, max_new_tokens=3, do_sample=False)
        )
    layer_tokens, first_pass = (
        [row[0] for row in rows] for rows in (session.layer_tokens, session.first_pass_tokens)
    )
    formula = prefill_flops(layer_tokens, DecoderSizes.of(decoder), first_pass)
    assert counted == pytest.approx(formula, rel=0.05)
    assert hooks_before == [len(module._forward_hooks) for module in model.modules()]


def test_only_the_first_call_is_counted() -> None:
    layer = torch.nn.Linear(3, 5, bias=False)
    once = count_flops(layer, lambda: layer(torch.ones(7, 3)))
    twice = count_flops(layer, lambda: [layer(torch.ones(7, 3)) for _ in range(2)])
    assert once == twice == 2 * 7 * 3 * 5


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_groups_of_heads_that_share_keys_are_counted(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")

    class Attend(torch.nn.Module):
        def forward(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return scaled_dot_product_attention(query, key, key, is_causal=True, enable_gqa=True)

    query, key = (torch.zeros(1, heads, 64, 64, device=device).bfloat16() for heads in (8, 2))
    attend = Attend()
    assert count_flops(attend, lambda: attend(query, key)) == 2 * 8 * 64 * 64 * (64 + 64)


def test_counting_ends_with_an_exception() -> None:
    layer = torch.nn.Linear(3, 5)
    with pytest.raises(RuntimeError):
        count_flops(layer, lambda: layer(torch.ones(7, 4)))
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks
    assert _get_current_dispatch_mode() is None  # the counter is off


def test_cache_bytes_are_those_of_a_real_cache(family) -> None:
    model, processor = family.load()
    encoded = family.encode(processor, [Shapes(task="grounding")[0]])
    with torch.inference_mode(), open_session(model, family, NoPruning()) as session:
        model.generate(**encoded.inputs, max_new_tokens=1)
    sizes = DecoderSizes.of(family.decoder(model))
    assert session.cache_bytes == sizes.cache_bytes(session.layouts[0].length, 4)


@pytest.mark.parametrize("name", SMALL)
def test_every_family_is_accounted_for(name) -> None:
    model, (picture, *_) = SMALL[name].model("eager"), SMALL[name].images
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the counter does not know grouped products
    batch = prompts([5, picture, 7], family=name)
    family = find_family(model)
    decoder = family.decoder(model)
    pruner = RandomPruning(keep_ratio=0.3, layer=2)
    with torch.inference_mode(), open_session(model, family, pruner) as session:
        counted = count_flops(
            decoder, lambda: model.generate(**batch.inputs, max_new_tokens=1, do_sample=False)
        )
    sizes = DecoderSizes.of(decoder)
    formula = prefill_flops([row[0] for row in session.layer_tokens], sizes)
    assert counted == pytest.approx(formula, rel=0.05)
    stored = sum(row[0] for row in session.cache_lengths)
    states = 4 * SMALL[name].state_width
    assert session.cache_bytes == stored * sizes.cached[-1] * 4 + states
    assert sizes.cache_bytes(10, 4) == sum(sizes.cached) * 40 + states
