"""InternVL."""

from __future__ import annotations

from typing import Any

from expectation import Expectation, Shown, Size, Written, raw, thousandths
from torch import Tensor

from expected.llava15 import LETTERS, REGION
from expected.qwen2vl import ASSISTANT, ROLES, USER
from ivcp.core.layout import PromptLayout
from ivcp.core.types import Box

SYSTEM = (
    "你是书生·万象，英文名是InternVL，"  # noqa: RUF001
    "是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
TILE = ("tile", 4, 4)
THUMBNAIL = ("thumbnail", 4, 4)


class Expected(Expectation):
    """Tiles, thumbnail last; boxes in thousandths."""

    roles = ROLES
    special = ("<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>")
    ids = {"image_token_id": "<IMG_CONTEXT>"}
    preprocessor = {
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "crop_to_patches": False,
        "max_patches": 12,
        "size": {"height": 32, "width": 32},
    }
    variants = ({"min_tiles": 2, "max_tiles": 12},)
    layout_in_pixels = True
    grids = [
        [TILE] * 4 + [THUMBNAIL],
        [("image", 4, 4)],
        [TILE] * 3 + [THUMBNAIL],
        [TILE] * 2 + [THUMBNAIL],
    ]
    questions = (f"{REGION}<ref>Left CAT</ref>", "Is there a cat?", LETTERS)
    around = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n{USER}", "<IMG_CONTEXT>\n", ASSISTANT,
    )  # fmt: skip
    wording = "internvl"
    answers = [
        ("<ref>cat</ref><box>[[12, 345, 678, 999]]</box>", (12, 345, 678, 999)),
        ("<ref>cat</ref><box>[[12,345,678,999], [1, 2, 3, 4]]</box>", (12, 345, 678, 999)),
        ("[12, 345, 678, 999]", (12, 345, 678, 999)),
        ("[[0.25, 0.5, 0.75, 1.0]]", (250, 500, 750, 1000)),
        ("[0, 0, 1, 1]", (0, 0, 1000, 1000)),
        ("[1, 1, 1, 1]", (1, 1, 1, 1)),
        ("[[-5, 10, 20, 30]]", (-5, 10, 20, 30)),
        ("[[700, 600, 100, 200]]", (700, 600, 100, 200)),
        ("[[2, 311, 98]]", None),
        ("<box>12, 345, 678, 999</box>", None),
        ("Yes.", None),
        ("", None),
    ]
    written = (Written({}, thousandths, "<ref>it</ref><box>[[{}, {}, {}, {}]]</box>", 0.997),)
    units = 1000

    def prompt(self, question: str, images: int) -> str:
        """Several images have numbers."""
        before, image, behind = self.around
        names = [f"Image-{n}: " for n in range(1, images + 1)] if images > 1 else [""] * images
        return before + "".join(name + image for name in names) + question + behind

    def token_count(self, processor: Any, size: Size, images: int) -> int:
        width, height = size
        most = min(processor.images.max_patches, 64 // images)  # InternVL: 64 tiles a sample
        limits = {"min_patches": processor.images.min_patches, "max_patches": most}
        patches = processor.images.get_number_of_image_patches(height, width, limits)
        return processor.config.image_seq_length * patches

    def shown(
        self, processor: Any, inputs: dict[str, Tensor], layout: PromptLayout, area: Box, size: Size
    ) -> list[Shown]:
        pixels = raw(processor, inputs["pixel_values"])
        pairs = zip(pixels, layout.images[0].grids, strict=True)
        return [(tile, grid, grid.area) for tile, grid in pairs]
