"""GLM-4.1V."""

from __future__ import annotations

from typing import Any

from expectation import Size, Written, thousandths

from expected.qwen2vl import PREPROCESSOR, Qwen
from ivcp.core.family import BoxFrame

START = "[gMASK]<sop><|user|>\n"
IMAGE = "<|begin_of_image|><|image|><|end_of_image|>"


class Expected(Qwen):
    """Thoughts before answers, boxes in thousandths in brackets of any kind."""

    roles = {"eos_token": "<|user|>", "pad_token": "<|endoftext|>"}
    special = (
        "[gMASK]", "<sop>", "<|assistant|>", "<|begin_of_image|>", "<|end_of_image|>",
        "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>",
    )  # fmt: skip
    ids = {
        "image_token_id": "<|image|>",
        "video_token_id": "<|video|>",
        "image_start_token_id": "<|begin_of_image|>",
        "image_end_token_id": "<|end_of_image|>",
        "video_start_token_id": "<|begin_of_video|>",
        "video_end_token_id": "<|end_of_video|>",
    }
    chat = (
        "[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>\n"
        "{% if message.content is string %}{{ message.content }}"
        "{% else %}{% for part in message.content %}"
        "{% if part.type == 'image' %}<|begin_of_image|><|image|><|end_of_image|>"
        "{% elif part.type == 'video' %}<|begin_of_video|><|video|><|end_of_video|>"
        "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    preprocessor = {
        **PREPROCESSOR,
        "image_processor_type": "Glm4vImageProcessor",
        "size": {"shortest_edge": 2 * 64, "longest_edge": 2 * 3200},
    }
    full_size = {
        "patch_size": 14, "size": {"shortest_edge": 112 * 112, "longest_edge": 28 * 28 * 15000},
    }  # fmt: skip
    runs_offloaded = False
    generates_offloaded = False
    videos_alone = True
    questions = (
        "Help me to locate Left CAT in the image and give me its bounding boxes.",
        "Is there a cat?",
        "Question: Which?\nOptions:\nA. cat\nB. a dog\n"
        "Please select the correct answer from the options above. \n",
    )
    around = (START, IMAGE, "<|assistant|>\n")
    wording = "deepseek"  # but for boxes, the words of the datasets
    answers = [
        ("[[12, 345, 678, 999]]", (12, 345, 678, 999)),
        ("It is at [12,345,678,999].", (12, 345, 678, 999)),
        ("<12, 345, 678, 999>", (12, 345, 678, 999)),
        ("(12, 345, 678, 999)", (12, 345, 678, 999)),
        ("[[1, 2, 3, 4], [5, 6, 7, 8]]", (1, 2, 3, 4)),
        ('{"bbox_2d": [30, 40, 10, 20]}', (30, 40, 10, 20)),
        ("[1, 2, 3]", None),
        ("12, 345, 678, 999", None),
        ("", None),
    ]
    written = (Written({}, thousandths, "<|begin_of_box|>[[{}, {}, {}, {}]]<|end_of_box|>", 0.997),)

    def frame(self, family: Any, size: Size) -> BoxFrame:
        return BoxFrame(1000, 1000, *size)
