"""Idefics3, and what tests know of SmolVLM."""

from __future__ import annotations

from typing import Any

from expectation import Expectation, Shown, Size, Written, fractions, raw
from PIL import Image
from torch import Tensor
from transformers.models.smolvlm import processing_smolvlm as library

from expected.llava15 import BOX, FRACTIONS, REGION
from expected.qwen2vl import LETTERS
from ivcp.core.layout import PromptLayout
from ivcp.core.types import Box

FAKE = "<fake_token_around_image>"
TILE, THUMBNAIL = ("tile", 3, 3), ("thumbnail", 3, 3)


def preprocessor(name: str, tile: int) -> dict[str, Any]:
    """The published preprocessor file for tiles of this size."""
    return {
        "image_processor_type": name,
        "do_image_splitting": True,
        "max_image_size": {"longest_edge": tile},
        "size": {"longest_edge": 4 * tile},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 1,
    }


def library_text(processor: Any, size: Size, tokens: int) -> str:
    """The text of an image as transformers writes it for SmolVLM."""
    image = Image.new("RGB", size)
    found = processor.images([[image]], return_row_col_info=True, return_tensors="pt")
    ((rows,),), ((columns,),) = found["rows"], found["cols"]
    return library.get_image_prompt_string(
        rows, columns, tokens, fake_token_around_image=FAKE, image_token="<image>",
        global_image_token="<global-img>",
    )  # fmt: skip


class Expected(Expectation):
    """Tiles, the global view last; a tokenizer that cuts the names of tiles into pieces."""

    roles = {
        "bos_token": "<|begin_of_text|>", "eos_token": "<end_of_utterance>",
        "pad_token": "<|reserved_special_token_0|>",
    }  # fmt: skip
    special = ("<image>", FAKE)
    ids = {"image_token_id": "<image>"}
    preprocessor = preprocessor("Idefics3ImageProcessor", 24)
    full_size = {"max_image_size": {"longest_edge": 364}, "size": {"longest_edge": 1456}}
    variants = ({"split": False}, {"longest_edge": 50})
    runs_offloaded = generates_offloaded = False  # embeddings go to the device of the weights
    grids = [
        [TILE] * 4 + [THUMBNAIL],
        [("image", 3, 3)],
        [TILE] * 3 + [THUMBNAIL],
        [TILE] * 2 + [THUMBNAIL],
    ]
    questions = (REGION + "Left CAT", "Is there a cat?", LETTERS)
    around = ("User:", "<image>", "<end_of_utterance>\nAssistant:")
    answers = FRACTIONS
    written = (Written({}, fractions, BOX, 0.973),)

    def prompt(self, question: str, images: int) -> str:
        """A blank stands before a question without an image."""
        return super().prompt(question if images else f" {question}", images)

    def token_count(self, processor: Any, size: Size, images: int) -> int:
        return library_text(processor, size, 9).count("<image>")

    def shown(
        self, processor: Any, inputs: dict[str, Tensor], layout: PromptLayout, area: Box, size: Size
    ) -> list[Shown]:
        pixels = raw(processor, inputs["pixel_values"])[:, 0]
        pairs = zip(pixels, layout.images[0].grids, strict=True)
        return [(view, grid, grid.area) for view, grid in pairs]
