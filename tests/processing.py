"""Every family with the library's own image processor, at the size of `ivcp.testing`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vocabulary import byte_tokenizer

from ivcp.models.hub import Processor
from ivcp.testing import SMALL

CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 24}}
CLIP["crop_size"] = {"height": 24, "width": 24}
QWEN = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "merge_size": 2}
PREPROCESSOR = {  # small, in the form of the published files
    "qwen2vl": QWEN | {"min_pixels": 64, "max_pixels": 3200},
    "qwen25vl": QWEN | {"min_pixels": 64, "max_pixels": 3200},
    "qwen3vl": QWEN | {"size": {"shortest_edge": 64, "longest_edge": 3200}},
    "llava15": CLIP,
    "llavanext": CLIP | {"image_processor_type": "LlavaNextImageProcessor"},
    "internvl": {
        "image_processor_type": "GotOcr2ImageProcessorFast", "crop_to_patches": False,
        "max_patches": 12, "size": {"height": 32, "width": 32},
    },
    "deepseekvl": {
        "image_processor_type": "DeepseekVLImageProcessor", "min_size": 6,
        "background_color": [127, 127, 127], "size": {"height": 24, "width": 24},
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    },
    "deepseekvl2": {},  # all is in the model's configuration
}  # fmt: skip
FAMILIES: dict[str, Any] = {name: small.family for name, small in SMALL.items()}


def setup(
    name: str,
    folder: Path,
    tokenizer: Any = None,
    published: dict[str, Any] | None = None,
    **fields: Any,
) -> tuple[Any, Processor]:
    """A family and its processor at the size of the tests' models, read from a folder.

    Args:
        name: Stem of the family.
        folder: An empty folder.
        tokenizer: None for one token a byte.
        published: Settings that the folder's file changes.
        fields: Fields of the family.
    """
    published = PREPROCESSOR[name] | (published or {})
    config = SMALL[name].config(layers=1)
    if name == "llavanext":
        published["image_grid_pinpoints"] = config.image_grid_pinpoints
    (folder / "preprocessor_config.json").write_text(json.dumps(published))
    family = FAMILIES[name](path=str(folder), **fields)
    images = family._images(config)
    return family, Processor(tokenizer or byte_tokenizer(name), images, config)
