"""DeepSeek-VL, and what tests know of both DeepSeek families."""

from __future__ import annotations

from expectation import Expectation, Written, fractions

from expected.llava15 import BOX, FRACTIONS, REGION
from expected.qwen2vl import LETTERS as CHOOSE

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content"
    " that the user provides, and assist the user with a variety of tasks using natural language."
)
LETTERS = f"{CHOOSE} \n"


class DeepSeek(Expectation):
    """Prompts have no blanks around the question."""

    roles = {
        "bos_token": "<｜begin▁of▁sentence｜>",  # noqa: RUF001
        "eos_token": "<｜end▁of▁sentence｜>",  # noqa: RUF001
        "pad_token": "<｜▁pad▁｜>",  # noqa: RUF001
    }
    fill = 127 / 255

    def prompt(self, question: str, images: int) -> str:
        return super().prompt(question.rstrip(), images)


class Expected(DeepSeek):
    """A padded square, boxes as fractions."""

    special = ("<image_placeholder>",)
    ids = {"image_token_id": "<image_placeholder>"}
    preprocessor = {
        "image_processor_type": "DeepseekVLImageProcessor",
        "min_size": 6,
        "background_color": [127, 127, 127],
        "size": {"height": 24, "width": 24},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    questions = (REGION + "Left CAT", "Is there a cat?", LETTERS)
    around = (f"{SYSTEM}\n\nUser: ", "<image_placeholder>", "\n\nAssistant:")
    wording = "deepseek"
    answers = FRACTIONS
    written = (Written({}, fractions, BOX, 0.973),)
