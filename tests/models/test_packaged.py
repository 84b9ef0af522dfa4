"""The model that ships with the package, through the family that loads the 7B model."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.metric import ScoredAnswer
from ivcp.datasets.shapes import Shapes
from ivcp.metrics.grounding import GroundingMetrics
from ivcp.models.llava15 import Llava15
from ivcp.models.qwen25vl import PACKAGED, Qwen25VL
from ivcp.pruners.none import NoPruning
from ivcp.pruners.random import RandomPruning

FAMILY = Qwen25VL(path=None, dtype="float32")
LLAVA = Llava15(path=None, dtype="float32")


@pytest.fixture(scope="module")
def loaded() -> Any:
    return FAMILY.load()


def accuracy(family: Any, loaded: Any, pruner: Any, size: int) -> float:
    """Acc@0.5 on the first samples of the test split."""
    model, processor = loaded
    data, metric = Shapes(task="grounding", size=size), GroundingMetrics()
    answers = []
    for first in range(0, size, 10):
        samples = [data[index] for index in range(first, first + 10)]
        encoded = family.encode(processor, samples)
        with pruned(model, pruner) as session:
            session.sample_ids = [sample.id for sample in samples]
            out = model.generate(**encoded.inputs, max_new_tokens=16, do_sample=False)
        texts = family.decode(processor, out[:, encoded.inputs["input_ids"].shape[1] :])
        for text, sample, frame in zip(texts, samples, encoded.box_frames, strict=True):
            box = metric.read(text, sample, family.parse_box)
            box = None if box is None else frame.to_pixels(box)
            answers.append(ScoredAnswer(box, sample.answer, metric.score(box, sample)))
    return metric.values(answers)["acc@0.5"]


def test_it_is_an_ordinary_folder_of_the_promised_kind(loaded: Any) -> None:
    model, _ = loaded
    assert type(model) is Qwen2_5_VLForConditionalGeneration
    assert FAMILY.depth() == len(model.model.language_model.layers) >= 6
    vision = model.config.vision_config
    assert 0 < len(vision.fullatt_block_indexes) < vision.depth, "window and full attention"
    assert sum(path.stat().st_size for path in PACKAGED.iterdir()) < 25 * 2**20
    assert (PACKAGED / "README.md").exists()


@pytest.mark.parametrize("family", [FAMILY, LLAVA], ids=["tiny", "tiny_llava"])
def test_it_answers_and_pruning_bites(family: Any) -> None:
    loaded = family.load()
    whole = accuracy(family, loaded, NoPruning(), 40)
    tenth = accuracy(family, loaded, RandomPruning(keep_ratio=0.1, layer=4), 40)
    assert whole > 0.9
    assert tenth < whole - 0.1


def test_the_small_llava_is_one_of_its_kind() -> None:
    model, processor = LLAVA.load()
    assert type(model) is LlavaForConditionalGeneration
    assert LLAVA.depth() == len(model.model.language_model.layers) >= 8
    assert sum(path.stat().st_size for path in Path(LLAVA.source).iterdir()) < 10 * 2**20
    encoded = LLAVA.encode(processor, [Shapes(task="yes_no")[0]])
    assert (encoded.inputs["input_ids"] == model.config.image_token_id).sum() == 144
    assert LLAVA.text_tower is None


def test_prompts_hold_144_visual_tokens(loaded: Any) -> None:
    model, processor = loaded
    encoded = FAMILY.encode(processor, [Shapes(task="yes_no")[0]])
    assert (encoded.inputs["input_ids"] == model.config.image_token_id).sum() == 144


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="it is installed")
def test_flash_attention_that_is_missing_is_named() -> None:
    family = Qwen25VL(path=None, dtype="float32", attention="flash_attention_2")
    with pytest.raises(UserError, match=r"model\.attention=flash_attention_2 cannot be used"):
        family.load()


def test_pixel_limits_reach_the_processor() -> None:
    _, processor = Qwen25VL(path=None, dtype="float32", max_pixels=96 * 96).load()
    encoded = FAMILY.encode(processor, [Shapes(task="grounding")[0]])
    assert encoded.box_frames[0].width * encoded.box_frames[0].height <= 96 * 96
    assert torch.equal(encoded.inputs["image_grid_thw"][0], torch.tensor([1, 12, 12]))
