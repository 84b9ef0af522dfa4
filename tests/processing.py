"""Every family with the library's own image processor, at the size of the models in `small.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from small import SMALL
from vocabulary import byte_tokenizer

from ivcp.models.deepseekvl import DeepSeekVL
from ivcp.models.deepseekvl2 import DeepSeekVL2
from ivcp.models.hub import Processor
from ivcp.models.internvl import InternVL
from ivcp.models.llava15 import Llava15
from ivcp.models.llavanext import LlavaNext
from ivcp.models.qwen2vl import Qwen2VL
from ivcp.models.qwen3vl import Qwen3VL
from ivcp.models.qwen25vl import Qwen25VL

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
FAMILIES: dict[str, Any] = {
    "qwen2vl": Qwen2VL,
    "qwen25vl": Qwen25VL,
    "qwen3vl": Qwen3VL,
    "llava15": Llava15,
    "llavanext": LlavaNext,
    "internvl": InternVL,
    "deepseekvl": DeepSeekVL,
    "deepseekvl2": DeepSeekVL2,
}


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
        published: What the folder's file says otherwise.
        fields: Fields of the family.
    """
    published = PREPROCESSOR[name] | (published or {})
    model = SMALL[name].model(layers=1)
    if name == "llavanext":
        published["image_grid_pinpoints"] = model.config.image_grid_pinpoints
    (folder / "preprocessor_config.json").write_text(json.dumps(published))
    family = FAMILIES[name](path=str(folder), **fields)
    images = family._images(model.config)
    return family, Processor(tokenizer or byte_tokenizer(name), images, model.config)
