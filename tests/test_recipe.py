"""The recipe of the packaged model: what it makes is what is packaged, and it trains."""

from __future__ import annotations

import json
from pathlib import Path

import lightning
import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoTokenizer

from ivcp.models.qwen25vl import PACKAGED
from recipes.tiny import train
from recipes.tiny.build import build_image_processor

CONF = Path(train.__file__).parent / "conf" / "train.yaml"


@pytest.fixture(scope="module")
def module() -> train.TinyTraining:
    torch.manual_seed(0)
    return train.TinyTraining(
        OmegaConf.merge(OmegaConf.load(CONF), {"batch_size": 2, "workers": 0})
    )


def test_it_makes_the_packaged_tokenizer_processor_and_sizes(module) -> None:
    packaged = AutoTokenizer.from_pretrained(PACKAGED)
    assert module.tokenizer.get_vocab() == packaged.get_vocab()
    text = 'Locate the red circle. {"bbox_2d": [1, 20, 300, 4], "label": "circle"}<|im_end|>'
    assert module.tokenizer(text)["input_ids"] == packaged(text)["input_ids"]
    stored = json.loads((PACKAGED / "preprocessor_config.json").read_text())
    processor = json.loads(build_image_processor().to_json_string())
    assert {key: processor.get(key) for key in stored} == stored
    config = AutoConfig.from_pretrained(PACKAGED)
    for part in ("text_config", "vision_config"):
        made, stored = (getattr(c, part).to_dict() for c in (module.model.config, config))
        assert {**made, "dtype": "float32"} == {**stored, "dtype": "float32"}


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's
def test_a_step_of_training_changes_every_weight(module, tmp_path) -> None:
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
    assert unchanged == []
