"""LLaVA-1.5, and what tests know of LLaVA."""

from __future__ import annotations

from typing import Any

import numpy as np
from expectation import Expectation, Size, Written, fractions

from ivcp.core.family import BoxFrame
from ivcp.models.llava15 import square_frame

PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 24},
    "crop_size": {"height": 24, "width": 24},
}
REGION = "Please provide the bounding box coordinate of the region this sentence describes: "
LETTERS = (
    "Which?\nA. cat\nB. a dog\nAnswer with the option's letter from the given choices directly."
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
)
FRACTIONS = [
    ("[0.12, 0.34, 0.56, 0.78]", (0.12, 0.34, 0.56, 0.78)),
    ("[0.1,0.2,0.3,0.4]", (0.1, 0.2, 0.3, 0.4)),
    ("The box is [0, 0.5, 1, 1.0].", (0, 0.5, 1, 1)),
    ("[-0.01, 0.2, 1.02, 0.4]", (-0.01, 0.2, 1.02, 0.4)),
    ("[0.9, 0.8, 0.1, 0.2]", (0.9, 0.8, 0.1, 0.2)),
    ("[[0.1, 0.2, 0.3, 0.4]]", (0.1, 0.2, 0.3, 0.4)),
    ("[0.1, 0.2, 0.3]", None),
    ("0.1 0.2 0.3 0.4", None),
    ("yes", None),
    ("", None),
]
BOX = "[{:.2f}, {:.2f}, {:.2f}, {:.2f}]"


def fractions_of_the_square(box: np.ndarray, size: Size) -> list[float]:
    """The box as fractions of the padded image."""
    side, margin = max(size), (max(size) - np.array(size)) // 2
    return np.round((box + np.tile(margin, 2)) / side, 2).tolist()


class Llava(Expectation):
    """Vicuna's conversation, boxes as fractions."""

    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    special = ("<image>",)
    ids = {"image_token_id": "<image>"}
    preprocessor = PREPROCESSOR
    questions = (REGION + "Left CAT", "Is there a cat?", LETTERS)
    around = (VICUNA + "USER: ", "<image>\n", " ASSISTANT:")
    wording = "llava"
    answers = FRACTIONS


class Expected(Llava):
    """Images are padded or cropped to a square."""

    variants = ({"square": "crop"}, {"box_frame": "image"})
    fill = 0x68 / 255
    written = (
        Written({"box_frame": "image"}, fractions, BOX, 0.973),
        Written({}, fractions_of_the_square, "[{}, {}, {}, {}]", 0.967),
    )

    def frame(self, family: Any, size: Size) -> BoxFrame:
        if family.box_frame == "padded":
            return square_frame(size, max(size))
        return super().frame(family, size)
