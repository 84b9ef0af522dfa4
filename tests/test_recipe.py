"""The recipe of the packaged models: what it makes is what is packaged, and it trains."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import AutoConfig, AutoTokenizer

from ivcp.core.types import Sample
from ivcp.datasets.scenes import make_scene
from ivcp.datasets.shapes import draw_question
from recipes.tiny import train
from recipes.tiny.data import NO_INPUTS, Packed, PackedScenes, collate

CONF = Path(train.__file__).parent / "conf"

TEXT = {
    "qwen": 'Locate the red circle. {"bbox_2d": [1, 20, 300, 4], "label": "circle"}<|im_end|>',
    "llava": "USER: <image>\nthe red circle ASSISTANT:[0.12, 0.50, 0.99, 1.00]</s>",
}
UNUSED = r"vision_tower\.(encoder\.layers\.4|post_layernorm)"
"""What stands behind the tower's layer that LLaVA reads, the last but one."""


@pytest.fixture(scope="module", params=list(TEXT))
def module(request: pytest.FixtureRequest) -> train.TinyTraining:
    torch.manual_seed(0)
    small = ["batch_size=2", "workers=0", f"instrument={request.param}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return train.TinyTraining(compose("train", small))


def packed_scene(module: Any, index: int) -> Packed:
    return PackedScenes(module.instrument, module.model.config, size=index + 1)[index]


def test_it_makes_the_packaged_tokenizer_processor_and_sizes(module: Any) -> None:
    folder = module.instrument.family.packaged
    packaged, name = AutoTokenizer.from_pretrained(folder), module.cfg.instrument._target_
    assert module.tokenizer.get_vocab() == packaged.get_vocab()
    text = TEXT["llava" if "llava" in name else "qwen"]
    assert module.tokenizer(text)["input_ids"] == packaged(text)["input_ids"]
    stored = json.loads((folder / "preprocessor_config.json").read_text())
    processor = json.loads(module.instrument.image_processor().to_json_string())
    assert {key: processor.get(key) for key in stored} == stored
    config = AutoConfig.from_pretrained(folder)
    for part in ("text_config", "vision_config"):
        made, stored = (getattr(c, part).to_dict() for c in (module.model.config, config))
        assert {**made, "dtype": "float32"} == {**stored, "dtype": "float32"}


def test_training_sees_the_prompts_of_evaluation(module: Any) -> None:
    """The image part and the first question are what the family encodes, token by token."""
    packed, scene = packed_scene(module, 0), make_scene(0, "train", 0)
    first = draw_question(scene, "yes_no", np.random.default_rng((*scene.pixel_seed, 3)))
    sample = Sample(
        id="a", task="yes_no", images=(scene.render(),), question=first.text, answer=first.answer
    )
    encoded = module.instrument.family.encode(module.processor, [sample]).inputs
    assert encoded["input_ids"][0].tolist() == packed.ids[: packed.last[0] + 1].tolist()
    assert torch.equal(encoded["pixel_values"], packed.pixels["pixel_values"])


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's
def test_a_step_of_training_changes_every_weight(module: Any, tmp_path: Any) -> None:
    before = {name: value.clone() for name, value in module.named_parameters()}
    trainer = lightning.Trainer(
        max_steps=1, limit_val_batches=0, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module)
    unchanged = [
        name for name, value in module.named_parameters() if torch.equal(value, before[name])
    ]
    assert [name for name in unchanged if not re.search(UNUSED, name)] == []


def test_questions_of_one_image_are_trained_as_if_each_stood_alone(module: Any) -> None:
    """States behind each question in a packed sequence are those of `generate` with it alone."""
    packed, scene = packed_scene(module, 1), make_scene(0, "train", 1)
    batch = collate([packed], module.tokenizer.pad_token_id)
    inputs = {name: value for name, value in batch.items() if name not in NO_INPUTS}
    module.eval()
    with torch.no_grad():
        states = module.model.model(**inputs, use_cache=False).last_hidden_state[0]
    rng, image = np.random.default_rng((*scene.pixel_seed, 3)), scene.render()
    for last, task in zip(packed.last, ["yes_no", "grounding", "grounding"], strict=False):
        drawn = draw_question(scene, task, rng)
        sample = Sample(
            id="a", task=task, images=(image,), question=drawn.text, answer=drawn.answer
        )
        encoded = module.instrument.family.encode(module.processor, [sample]).inputs
        with torch.no_grad():
            out = module.model.generate(
                **encoded, max_new_tokens=1, output_logits=True, return_dict_in_generate=True
            )
        assert torch.allclose(module.model.lm_head(states[last]), out.logits[0][0], atol=1e-4)
