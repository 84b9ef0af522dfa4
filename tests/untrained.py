"""The packaged model with random weights, on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import AutoConfig, GenerationConfig

from ivcp.models.qwen25vl import PACKAGED
from ivcp.testing import random_model


def save_untrained(folder: Path, layers: int) -> Path:
    """Save weights, tokenizer and image processor.

    Args:
        folder: A folder that does not exist yet.
        layers: Number of decoder layers.
    """
    shutil.copytree(PACKAGED, folder, ignore=shutil.ignore_patterns("*.safetensors", "README.md"))
    packaged = AutoConfig.from_pretrained(PACKAGED)
    text = packaged.text_config.to_dict() | {"num_hidden_layers": layers, "layer_types": None}
    model = random_model(type(packaged)(**packaged.to_dict() | {"text_config": text}))
    model.generation_config = GenerationConfig.from_pretrained(PACKAGED)
    model.save_pretrained(folder)
    return folder
