"""Qwen2-VL, and what tests know of all Qwen-VL families."""

from __future__ import annotations

from functools import cache
from typing import Any

from expectation import Expectation, Shown, Size, Written, raw, thousandths
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from ivcp.core.family import BoxFrame
from ivcp.core.layout import PromptLayout
from ivcp.core.types import Box

SPECIAL = (  # ids from 151643 on
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>",
    "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
TURNS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = (
    "{% if messages[0].role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)
PREPROCESSOR = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4, "merge_size": 2}

HELPFUL = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
USER = "<|im_start|>user\n"
VISION = "<|vision_start|><|image_pad|><|vision_end|>"
ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"
JSON = "\nLocate Left CAT and output the bbox coordinates in JSON format."
YES_NO = "Is there a cat? Please answer yes or no."
LETTERS = (
    "Question: Which?\nOptions:\nA. cat\nB. a dog\n"
    "Please select the correct answer from the options above."
)
FENCED = '```json\n[\n\t{"bbox_2d": [%s], "label": "cat"}\n]\n```'
JSON_ANSWERS = [
    (FENCED % "1, 22, 333, 4444", (1, 22, 333, 4444)),
    (FENCED % "1,22,333,4444", (1, 22, 333, 4444)),
    ("{'bbox_2d': [ 1 , 2.5,-3 , 4.25 ]}", (1, 2.5, -3, 4.25)),
    ('{"bbox_2d":[1,\n2,\n3,\n4]}', (1, 2, 3, 4)),
    ("{'bbox': [10, 20, 30, 40]}", (10, 20, 30, 40)),
    ('[{"bbox_2d": [5, 6, 7, 8]}, {"bbox_2d": [1, 2, 3, 4]}]', (5, 6, 7, 8)),
    ('{"bbox_2d": [30, 40, 10, 20]}', (30, 40, 10, 20)),  # swapped corners stay as they are
    ('{"bbox_2d": [1, 2, 3]}', None),
    ('{"bbox_2d": [1, 2, 3], "other": [4, 5, 6, 7, 8]}', None),
    ('{"bbox_2d": [1, 2, 3, ', None),
    ('{"point_2d": [1, 2]}', None),
    ("The cat is on the left.", None),
    ("1, 2, 3, 4", None),
    ("[a, b, c, d]", None),
    ("[]", None),
    ("", None),
]


@cache
def resized(size: Size, factor: int) -> Size:
    """Width and height that the published limits give."""
    pixels = {28: (4 * 28**2, 16384 * 28**2), 32: (65536, 16777216)}[factor]
    height, width = smart_resize(size[1], size[0], factor, *pixels)
    return width, height


class Qwen(Expectation):
    """Qwen2.5-VL's prompt and answers; each image is one grid of its own size."""

    roles = ROLES
    special = SPECIAL
    ids = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    chat = SYSTEM + TURNS
    preprocessor = {**PREPROCESSOR, "min_pixels": 64, "max_pixels": 3200}
    full_size = {"patch_size": 14, "min_pixels": 4 * 28**2, "max_pixels": 16384 * 28**2}
    grids = [[("image", *size)] for size in ((6, 9), (4, 5), (7, 3), (8, 8))]
    questions = (JSON, YES_NO, LETTERS)
    around = (HELPFUL + USER, VISION, ASSISTANT)
    wording = "qwen"
    answers = [*JSON_ANSWERS, ("(1,2),(3,4)", None)]
    factor = 28

    def token_count(self, processor: Any, size: Size, images: int) -> int:
        width, height = size
        patches = processor.images.get_number_of_image_patches(height, width, {})
        return patches // processor.images.merge_size**2

    def shown(
        self, processor: Any, inputs: dict[str, Tensor], layout: PromptLayout, area: Box, size: Size
    ) -> list[Shown]:
        _, rows, columns = inputs["image_grid_thw"][0].tolist()
        patches = inputs["pixel_values"].view(rows // 2, columns // 2, 2, 2, 3, 2, 4, 4)
        patches = patches[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6)
        grid = layout.images[0].grids[0]
        return [(raw(processor, patches.reshape(3, 4 * rows, 4 * columns)), grid, grid.area)]

    def frame(self, family: Any, size: Size) -> BoxFrame:
        return family.frame(*resized(size, self.factor), size)


class Expected(Qwen):
    """Boxes between markers of their own, in thousandths."""

    questions = (
        "\n<|object_ref_start|>Detect left cat<|object_ref_end|>", YES_NO, LETTERS,
    )  # fmt: skip
    answers = [
        ("<|box_start|>(12,345),(678,999)<|box_end|>", (12, 345, 678, 999)),
        (
            "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
            (1, 2, 3, 4),
        ),
        ("(12, 345), (678, 999)", (12, 345, 678, 999)),
        ("( 1.5 ,2),\n(-3,4)", (1.5, 2, -3, 4)),
        ("(9,8),(1,2)", (9, 8, 1, 2)),
        ("(1,2),(3,4)(5,6),(7,8)", (1, 2, 3, 4)),
        ("<|box_start|>(12,345),(678", None),
        ("(1,2,3,4)", None),
        ("(1,2)", None),
        *JSON_ANSWERS,
    ]
    written = (Written({}, thousandths, "<|box_start|>({},{}),({},{})<|box_end|>", 0.997),)
