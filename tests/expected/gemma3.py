"""Gemma 3."""

from __future__ import annotations

from expectation import Expectation, Written, fractions

from expected.deepseekvl import LETTERS
from expected.llava15 import BOX, FRACTIONS, REGION


class Expected(Expectation):
    """A squeezed square, boxes as fractions."""

    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    special = (
        "<image_soft_token>", "<start_of_image>", "<end_of_image>", "<start_of_turn>",
        "<end_of_turn>",
    )  # fmt: skip
    ids = {
        "image_token_id": "<image_soft_token>",
        "boi_token_index": "<start_of_image>",
        "eoi_token_index": "<end_of_image>",
    }
    preprocessor = {
        "image_processor_type": "Gemma3ImageProcessor",
        "do_pan_and_scan": None,
        "size": {"height": 48, "width": 48},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    around = (
        "<start_of_turn>user\n",
        "\n\n<start_of_image><image_soft_token><end_of_image>\n\n",
        "<end_of_turn>\n<start_of_turn>model\n",
    )
    questions = (REGION + "Left CAT", "Is there a cat?", LETTERS)
    wording = "deepseek"
    answers = FRACTIONS
    written = (Written({}, fractions, BOX, 0.973),)

    def prompt(self, question: str, images: int) -> str:
        return super().prompt(question.strip(), images)
