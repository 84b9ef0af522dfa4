"""One clear sentence for what a family cannot serve."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from families import takes_embeddings
from transformers import LlamaConfig, LlamaForCausalLM

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.pairing import fit_pair
from ivcp.models import find_family
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.random import RandomPruning
from ivcp.pruners.visionzip import VisionZip
from ivcp.testing import SMALL, batch_of, model_of, prompts

PRUNER = RandomPruning(keep_ratio=0.5, layer=2)
every_family = pytest.mark.parametrize("family", SMALL)


@every_family
@pytest.mark.parametrize("how", ["generate", "forward"])
def test_image_tokens_without_an_image(family: str, how: str) -> None:
    inputs = {
        name: value for name, value in batch_of(family).inputs.items()
        if name in ("input_ids", "attention_mask")
    }  # fmt: skip
    model = model_of(family)
    with pruned(model, PRUNER), pytest.raises(UserError, match=r"image.*(pass|give)"):
        (model if how == "forward" else partial(model.generate, max_new_tokens=1))(**inputs)


@every_family
@pytest.mark.parametrize("how", ["generate", "forward"])
def test_more_or_fewer_images_than_placeholders(family: str, how: str) -> None:
    a, b, *_ = SMALL[family].images
    one, two = (prompts(sample, family=family).inputs for sample in ([5, a, 7], [5, a, 7, b, 4]))
    text = ("input_ids", "attention_mask", "mm_token_type_ids")
    model = model_of(family)
    run = model if how == "forward" else partial(model.generate, max_new_tokens=1)
    for ids, pixels in ((one, two), (two, one)):
        inputs = {name: (ids if name in text else pixels)[name] for name in ids}
        with (
            torch.no_grad(),
            pruned(model, PRUNER),
            pytest.raises(UserError, match=r"one image for each placeholder|one whole image"),
        ):
            run(**inputs)


@every_family
def test_embeddings_hide_where_images_stand(family: str) -> None:
    model = model_of(family)
    if not takes_embeddings(model):
        pytest.skip("generate takes ids only")
    embeds = torch.randn(1, 5, 64)
    with pruned(model, PRUNER), pytest.raises(UserError, match="pass input_ids, not inputs_embeds"):
        model.generate(inputs_embeds=embeds, max_new_tokens=1)


def test_a_text_model_is_not_known() -> None:
    text = LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                    num_attention_heads=1)
    )  # fmt: skip
    with pytest.raises(UserError, match=r"models of type .*deepseek_vl,.*got 'llama'"):
        pruned(text, PRUNER).__enter__()


@every_family
def test_a_signal_that_the_family_lacks(family: str) -> None:
    @dataclass(frozen=True, kw_only=True)
    class LooksAtTheTower(IVCPrune):
        needs = frozenset({"depth"})

    model = model_of(family)
    assert "depth" not in find_family(model).provides(model.config)
    with pytest.raises(UserError, match=r"needs the signal depth, but"):
        pruned(model, LooksAtTheTower(layer=2)).__enter__()


@pytest.mark.parametrize("family", ["qwen2vl", "llavanext", "internvl", "deepseekvl2"])
def test_a_path_that_is_none_or_nowhere(family: str) -> None:
    kind: Any = type(find_family(model_of(family)))
    with pytest.raises(UserError, match=r"model\.path is not set"):
        kind(path=None).load()
    with pytest.raises(UserError, match=r"model\.path is not set"):
        kind(path="").load()
    with pytest.raises(UserError, match=r"must be an existing folder"):
        kind(path="/no/such/folder").load()


@every_family
def test_a_layer_beyond_the_vision_tower(family: str, tmp_path: Path) -> None:
    """The configuration's number of blocks is the tower's, and it is read before weights are."""
    model = model_of(family)
    model.config.save_pretrained(tmp_path)
    known = find_family(model)
    kind: Any = type(known)
    from_config = kind(path=str(tmp_path))
    blocks = len(known.tower(model).blocks)
    assert from_config.tower_depth() == blocks
    for layer in (blocks, -blocks - 1):
        with pytest.raises(
            UserError, match=rf"layer {layer} of .* give a number in -{blocks} \.\."
        ):
            fit_pair(VisionZip(tower_layer=layer), from_config, "small")
    fit_pair(VisionZip(tower_layer=blocks - 1), from_config, "small")
