"""Qwen2.5-VL: prompts, layout, answers and what goes wrong while loading."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from ivcp.core.errors import UserError
from ivcp.core.family import BoxFrame
from ivcp.core.types import Sample
from ivcp.models.processor import Processor
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.testing import SMALL, prompts, single

FAMILY = Qwen25VL()


def sample(task: Any, question: str, **fields: Any) -> Sample:
    return Sample(id="0", task=task, images=(), question=question, answer="", **fields)


def test_prompts_are_those_of_the_release() -> None:
    assert FAMILY.format_question(sample("grounding", "left cat")) == (
        "\nLocate left cat and output the bbox coordinates in JSON format."
    )
    assert FAMILY.format_question(sample("yes_no", "Is there a cat?")) == (
        "Is there a cat? Please answer yes or no."
    )
    assert FAMILY.format_question(sample("multiple_choice", "Which?", options=("a", "b"))) == (
        "Question: Which?\nOptions:\nA. a\nB. b\n"
        "Please select the correct answer from the options above."
    )


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ('```json\n[\n\t{"bbox_2d": [1, 22, 333, 4], "label": "x"}\n]\n```', (1, 22, 333, 4)),
        ('{"bbox_2d": [ 1.5,2 , -3, 4 ]}', (1.5, 2, -3, 4)),
        ("{'bbox': [10, 20, 30, 40]}", (10, 20, 30, 40)),
        ('{"bbox_2d": [1, 2, 3]}', None),
        ("bbox_2d 1, 2, 3, 4", None),
        ("", None),
    ],
)
def test_boxes_are_read(text: str, box: Any) -> None:
    assert FAMILY.parse_box(text) == box


def test_frame_maps_resized_pixels_to_original_ones() -> None:
    frame = BoxFrame(width=280, height=140, image_width=560, image_height=70)
    assert frame.to_pixels((0, 0, 280, 140)) == (0, 0, 560, 70)
    assert frame.to_pixels((28, 14, 56, 28)) == (56, 7, 112, 14)


class Words:
    """Stands in for a tokenizer: one id a placeholder, one a marker, one for anything else."""

    chat_template, bos_token_id = "x", None

    def apply_chat_template(self, messages: Any, **_: Any) -> str:
        parts = messages[0]["content"]
        return "".join("<|image_pad|>" if p["type"] == "image" else "T" for p in parts)

    def __call__(self, texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] * text.count("<|image_pad|>") + [2] for text in texts]}

    def pad(self, inputs: dict[str, list[list[int]]], **_: Any) -> dict[str, torch.Tensor]:
        rows = inputs["input_ids"]
        longest = max(map(len, rows))
        return {"input_ids": torch.tensor([[0] * (longest - len(r)) + r for r in rows])}

    def convert_tokens_to_ids(self, _: str) -> int:
        return 1


def test_frames_follow_the_processors_own_grid() -> None:
    """200 random sizes, thin and long ones too: a perfect answer maps back onto the image."""
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 200_000})
    processor = Processor(Words(), images)
    draw = random.Random(0)
    sizes = [(1, 100), (100, 1), (300, 30), (30, 300)]
    sizes += [(draw.randint(8, 400), draw.randint(8, 400)) for _ in range(196)]
    for size in sizes:
        picture = Image.new("RGB", size)
        asked = Sample(id="0", task="grounding", images=(picture,), question="x", answer="")
        encoded = FAMILY.encode(processor, [asked])
        frame = encoded.box_frames[0]
        tokens = (encoded.inputs["input_ids"] == 1).sum().item()
        assert tokens == frame.width * frame.height / 28**2
        assert (frame.image_width, frame.image_height) == size
        corner = frame.to_pixels((0, 0, frame.width, frame.height))
        assert corner == pytest.approx((0, 0, *size))


def test_layouts_from_positions_and_from_grids_agree() -> None:
    model = SMALL["qwen25vl"].model()
    batch = prompts([5, (6, 9), 7], [3, (4, 5), 12, (7, 3), 4], [14])
    inputs = batch.inputs
    rows = [single(batch, number)["input_ids"][0] for number in range(3)]
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"], inputs["mm_token_type_ids"], inputs["image_grid_thw"],
        attention_mask=inputs["attention_mask"],
    )  # fmt: skip
    given = [positions[:, n][:, inputs["attention_mask"][n].bool()] for n in range(3)]
    from_grids = FAMILY.layouts(model, rows, None, inputs)
    from_positions = FAMILY.layouts(model, rows, given, {})
    for one, other, spans, length in zip(
        from_grids, from_positions, batch.spans, batch.lengths, strict=True
    ):
        assert one.images == other.images
        assert [(image.start, image.length) for image in one.images] == spans
        assert one.length == length
    first, second = from_grids[1].images
    assert (*shape(first), *shape(second)) == (4, 5, 7, 3)
    queries = from_grids[1].text_queries(first).tolist()
    assert queries == [*range(first.stop + 2, second.start - 1), *range(second.stop + 1, 64)]
    assert from_grids[1].text_queries(second).tolist() == [*range(second.stop + 2, 64)]


def test_loading_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be an existing folder"):
        Qwen25VL(path=str(tmp_path / "nothing")).load()
    with pytest.raises(UserError, match=r"what save_pretrained writes"):
        Qwen25VL(path=str(tmp_path)).load()
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="is of type 'llama'"):
        Qwen25VL(path=str(tmp_path)).depth()


def shape(image: Any) -> tuple[int, int]:
    return image.grids[0].rows, image.grids[0].columns
