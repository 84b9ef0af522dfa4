"""Random weights: published sizes are right, and every family answers without a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from test_conf import CONF, composed

from ivcp import pruned
from ivcp.bench.image import bench_image, image_size
from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.models.published import PUBLISHED
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.models.random_weights import random_weights
from ivcp.pruners.ivcp import IVCPrune

BILLIONS = {  # of parameters, as the hub states them for the weights
    "qwen2vl_2b": 2.21, "qwen2vl": 8.29, "qwen25vl_3b": 3.75, "qwen25vl": 8.29, "qwen3vl_4b": 4.44,
    "qwen3vl": 8.77, "qwen35_0_8b": 0.85, "qwen35_2b": 2.21, "qwen35_4b": 4.54, "qwen35": 9.41,
    "qwen35_27b": 27.36, "gemma3": 4.30, "gemma3_12b": 12.19, "gemma3_27b": 27.43,
    "llava15": 7.06, "llava15_13b": 13.35, "llavanext": 7.06,
    "llavanext_13b": 13.35, "llavanext_mistral": 7.57, "internvl25": 8.08, "internvl3_2b": 2.09,
    "internvl3": 7.94, "internvl35_1b": 1.06, "internvl35_2b": 2.35, "internvl35_4b": 4.73,
    "internvl35": 8.53, "internvl35_14b": 15.12, "internvl35_38b": 38.4, "internvl35_30b": 30.85,
    "llava_onevision_05b": 0.894, "llava_onevision": 8.03, "llava_onevision_72b": 73.2,
    "glm41v": 10.29, "glm46v": 10.29, "deepseekvl": 1.98, "deepseekvl2": 16.15,
    "deepseekvl2_27b": 27.48,
    "idefics3": 8.46, "smolvlm": 2.25, "smolvlm_256m": 0.256, "smolvlm_500m": 0.507,
    "smolvlm2": 2.25, "smolvlm2_256m": 0.256, "smolvlm2_500m": 0.507,
}  # fmt: skip
MODELS = sorted(
    path.stem
    for path in (CONF / "model").glob("*.yaml")
    if OmegaConf.load(path).get("path", "") is not None  # which stands for a packaged one
)


def family(name: str, *settings: str) -> Any:
    return instantiate(composed(f"model={name}", *settings).model)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_its_published_number_of_parameters(name: str) -> None:
    model, _ = random_weights(family(name), device="meta").load()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters / 1e9 == pytest.approx(BILLIONS[name], rel=0.01)
    assert next(model.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_pruned_at_a_reduced_size(name: str) -> None:
    made = random_weights(family(name, "model.dtype=float32"), reduced=True)
    assert isinstance(made, type(family(name)))
    model, processor = made.load()
    image = bench_image(image_size(400, made, processor))
    sample = Sample(
        id="a", task="open_ended", images=(image,), question="What?", answer="", verbatim=True
    )
    encoded = made.encode(processor, [sample] * 2)
    pruner = IVCPrune(keep_ratio=0.5, layer=4)
    with torch.inference_mode(), pruned(model, pruner) as session:
        model.generate(**encoded.inputs, max_new_tokens=2, do_sample=False)
    visual = sum(image.length for image in session.layouts[0].images)
    assert len(session.kept[0]) == round(visual / 2)
    assert made.depth() == len(session.layer_tokens) == 8
    assert sum(parameter.numel() for parameter in model.parameters()) < 30e6


def test_weights_are_the_same_each_time_and_say_what_they_are() -> None:
    made = random_weights(Qwen25VL(dtype="float32"), reduced=True)
    one, two = (next(made.load()[0].parameters()) for _ in range(2))
    assert torch.equal(one, two)
    assert made.identity() == "random, reduced from Qwen/Qwen2.5-VL-7B-Instruct"


def test_a_folder_needs_its_configuration_only(tmp_path: Path) -> None:
    source = Path(Qwen25VL(path=None)._source) / "config.json"
    (tmp_path / "config.json").write_text(source.read_text())
    made = random_weights(Qwen25VL(path=str(tmp_path), dtype="float32"))
    model, processor = made.load()
    assert made.depth() == 8
    assert made.expected_tokens(processor, [(96, 64)]) == 24
    assert model.config.image_token_id == 3
    with pytest.raises(UserError, match=r"model\.reduced=true makes published sizes smaller"):
        random_weights(Qwen25VL(path=str(tmp_path)), reduced=True)


def test_sizes_of_every_checkpoint_belong_to_a_model() -> None:
    paths = {family(name).path for name in MODELS} | {"OpenGVLab/InternVL2_5-8B"}
    assert set(PUBLISHED) == paths - {None}


def test_a_missing_backend_is_one_sentence() -> None:
    made = random_weights(Qwen25VL(attention="flash_attention_2"), reduced=True)
    with pytest.raises(UserError, match=r"model\.attention=flash_attention_2 cannot be used here"):
        made.load()
