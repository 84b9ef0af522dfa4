"""Videos of LLaVA-OneVision and GLM: frames, pixels and tokens as the library counts them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from expected import EXPECTED
from PIL import Image
from processing import setup
from transformers import LlavaOnevisionProcessor

from ivcp.core.errors import UserError
from ivcp.core.types import Sample
from ivcp.core.video import Video
from ivcp.models.glm4v import Glm4V
from ivcp.models.llava_onevision import LlavaOnevision
from ivcp.testing import IMAGE, PAD, SMALL, VIDEO
from ivcp.testing.small import END, START, VIDEO_END, VIDEO_START


def video(frames: int, size: tuple[int, int] = (40, 24), rate: float = 2.0) -> Video:
    noise = np.random.default_rng(0).integers(0, 256, (frames, size[1], size[0], 3), dtype=np.uint8)
    times = tuple(number / rate for number in range(frames))
    return Video(frames=tuple(map(Image.fromarray, noise)), times=times)


def asked(*videos: Video, images: int = 0) -> Sample:
    pictures = (Image.new("RGB", (30, 20)),) * images
    return Sample(
        id="s", task="yes_no", images=pictures, question="Is it?", answer="", verbatim=True,
        videos=videos,
    )  # fmt: skip


def for_the_model(name: str, processor: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Inputs with the token ids that the tests' models know."""
    ids = inputs["input_ids"]
    known = ids % 80 + 3
    for key, token in EXPECTED[name].ids.items():
        known[ids == processor.tokenizer.convert_tokens_to_ids(token)] = getattr(
            processor.config, key
        )
    known[inputs["attention_mask"] == 0] = PAD
    return {**inputs, "input_ids": known}


def test_frames_of_llava_onevision_are_those_of_lmms() -> None:
    for total, frames in ((100, 32), (32, 32), (9, 32), (5, 1)):
        chosen = []
        clip = video(total, (4, 4))

        def read(choose: Any, _: Any, total: int = total, chosen: list[int] = chosen) -> None:
            chosen += choose(total, 2.0)

        processor = SimpleNamespace(config=SMALL["llava_onevision"].config())
        LlavaOnevision(frames=frames).read_clip(processor, SimpleNamespace(read=read))
        assert chosen == np.linspace(0, total - 1, frames, dtype=int).tolist()
        assert len(clip.frames) == total
    with pytest.raises(UserError, match=r"model\.frames must be at least 1"):
        LlavaOnevision(frames=0)


def test_videos_of_llava_onevision(tmp_path: Path) -> None:
    name = "llava_onevision"
    family, processor = setup(name, tmp_path, frames=4)
    samples = [asked(video(9), images=1), asked(video(2), video(30)), asked(images=2), asked()]
    encoded = family.encode(processor, samples)
    assert encoded.inputs["pixel_values_videos"].shape == (3, 4, 3, 24, 24)
    assert encoded.inputs["batch_num_images"].tolist() == [1, 2]
    own = object.__new__(LlavaOnevisionProcessor)  # the library's count of tokens
    own.num_image_tokens, own.video_token = 36, "<video>"
    text = own.replace_video_token(encoded.inputs, 0)
    prompt = f"{EXPECTED[name].around[0]}<video>\n<image>\nIs it?{EXPECTED[name].around[2]}"
    assert encoded.prompts[0] == prompt
    count = text.count("<video>")
    assert count == 4 * 3 * 3 + 1
    inputs = for_the_model(name, processor, encoded.inputs)
    assert (inputs["input_ids"] == VIDEO).sum(1).tolist() == [count, 2 * count, 0, 0]
    tokens = [(row == VIDEO).sum() + (row == IMAGE).sum() for row in inputs["input_ids"]]
    assert encoded.image_tokens == tokens
    model = SMALL[name].model(layers=1)
    with torch.no_grad():
        assert model(**inputs, logits_to_keep=1).logits.isfinite().all()
    rows = [
        row[mask.bool()]
        for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    layouts = family.layouts(model, rows, None, inputs)
    kinds = [[image.grids[0].kind for image in layout.images] for layout in layouts]
    assert kinds == [["frame", "thumbnail"], ["frame", "frame"], ["image", "image"], []]
    for layout, row in zip(layouts, rows, strict=True):
        for image in layout.images:
            if image.grids[0].kind == "frame":
                assert [(grid.rows, grid.columns) for grid in image.grids] == [(3, 3)] * 4
                assert (row[image.tokens] == VIDEO).all()
                assert row[image.stop] == VIDEO
                assert image.stop in layout.markers.tolist()
    several = layouts[2].images[0].grids[0]  # 30 x 20, padded to a square
    assert several.area == pytest.approx((0, -0.25, 1, 1.25))


def test_frames_of_glm_are_those_of_the_library() -> None:
    """Numbers by hand from `Glm4vVideoProcessor.sample_frames` for 30 frames a second."""
    family = Glm4V()
    assert family.choose_frames(90, 30.0) == [0, 15, 30, 45, 60, 75]
    assert family.choose_frames(45, 30.0) == [0, 15, 30, 30]  # an even number
    assert family.choose_frames(5, 30.0) == [0, 0]
    long = family.choose_frames(30 * 600, 30.0)
    assert len(long) == 600
    assert long[:3] == [0, 31, 61]  # ceil(600 / 599 * 30)
    assert long[-1] == 17999
    assert Glm4V(frames=4).choose_frames(301, 30.0) == [0, 100, 200, 300]


@pytest.mark.parametrize(
    ("seconds", "texts"),
    [("integer", ["0", "1", "2"]), ("decimal", ["0.0 seconds", "1.0 seconds", "2.0 seconds"])],
)
def test_videos_of_glm(seconds: str, texts: list[str], tmp_path: Path) -> None:
    name = "glm4v"
    limits = {"min_frame_tokens": 1, "max_frame_tokens": 30, "max_video_tokens": 60}
    family, processor = setup(name, tmp_path, seconds=seconds, **limits)
    clip = video(15, (40, 24), rate=5.0)  # 3 seconds: 6 frames
    encoded = family.encode(processor, [asked(clip), asked()])
    assert encoded.inputs["video_grid_thw"].tolist() == [[3, 6, 10]]
    assert encoded.inputs["pixel_values_videos"].shape == (180, 96)
    assert encoded.image_tokens == [3 * 15, 0]
    frames = [f"<|begin_of_image|>{'<|image|>' * 15}<|end_of_image|>{text}" for text in texts]
    filled = "<|begin_of_video|>" + "".join(frames) + "<|end_of_video|>"
    tokenizer = processor.tokenizer
    whole = encoded.prompts[0].replace("<|begin_of_video|><|video|><|end_of_video|>", filled)
    assert encoded.inputs["input_ids"][0].tolist() == tokenizer(whole).input_ids
    inputs = for_the_model(name, processor, encoded.inputs)
    types = inputs["mm_token_type_ids"]
    assert torch.equal(types == 2, inputs["input_ids"] == IMAGE)
    assert not (types == 1).any()
    model = SMALL[name].model(layers=1)
    with torch.no_grad():
        assert model(**inputs, logits_to_keep=1).logits.isfinite().all()
    (layout,) = family.layouts(model, [inputs["input_ids"][0]], None, inputs)
    (shown,) = layout.images
    assert [(grid.rows, grid.columns, grid.kind) for grid in shown.grids] == [(3, 5, "frame")] * 3
    marks = inputs["input_ids"][0][layout.markers].tolist()
    assert marks == [VIDEO_START, *[START, END] * 3, VIDEO_END]


def test_images_and_videos_of_glm_do_not_mix(tmp_path: Path) -> None:
    family, processor = setup("glm4v", tmp_path)
    with pytest.raises(UserError, match="images only or videos only"):
        family.encode(processor, [asked(video(4)), asked(images=1)])


def test_pixel_limits_of_glm_are_those_of_an_image(tmp_path: Path) -> None:
    """The image processor counts an image as two frames."""
    image = Sample(
        id="s", task="yes_no", images=(Image.new("RGB", (300, 300)),), question="", answer=""
    )
    for fields, edge in (({}, 14), ({"max_pixels": 999}, 6)):  # floor(sqrt(pixels) / 8) * 2
        family, processor = setup("glm4v", tmp_path, **fields)
        encoded = family.encode(processor, [image])
        assert encoded.inputs["image_grid_thw"].tolist() == [[1, edge, edge]]
