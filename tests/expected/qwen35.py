"""Qwen3.5."""

from __future__ import annotations

from expected.qwen2vl import ASSISTANT, VISION
from expected.qwen3vl import Expected as Qwen3VL


class Expected(Qwen3VL):
    """Qwen3-VL's images and boxes; the template strips each turn, and opens or skips thinking."""

    chat = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% set content %}{% for part in message.content %}"
        "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
        "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endset %}{{ content|trim }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
        "{% else %}<think>\n{% endif %}{% endif %}"
    )
    around = ("<|im_start|>user\n", VISION, ASSISTANT + "<think>\n\n</think>\n\n")

    def prompt(self, question: str, images: int) -> str:
        before, image, behind = self.around
        return before + (image * images + question).strip() + behind
