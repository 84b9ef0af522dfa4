"""InternVL is shown the frames of a video as images of one tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from made_clips import write_clip
from PIL import Image
from processing import setup
from test_qwen import clip, noise, sample

from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.strip import joined_frames
from ivcp.core.video import Video
from ivcp.models.internvl import InternVL, middles
from ivcp.pruners.ivcp import IVCPrune
from ivcp.testing import model_of


@pytest.mark.parametrize(("total", "count"), [(900, 32), (33, 32), (64, 8), (5, 5)])
def test_frames_are_the_middles_of_equal_parts(total, count) -> None:
    # `InternVLVideoProcessor.sample_frames` of transformers
    expected = np.arange(total / count / 2, total, total / count).astype(int)
    assert middles(total, count) == expected.tolist()
    assert middles(3, count) == [0, 1, 2]


@pytest.fixture
def internvl(tmp_path) -> tuple[Any, Any]:
    return setup("internvl", tmp_path, frames=4)


def test_each_frame_is_a_numbered_image_of_one_tile(internvl, tmp_path) -> None:
    family, processor = internvl
    images = [noise(90, 40), noise(40, 90)]
    both = sample(clip(7), clip(2), images=images, name="both")
    encoded = family.encode(processor, [both, sample(images=images[:1]), sample(clip(5))])
    text = processor.tokenizer.decode(encoded.inputs["input_ids"][0])
    tile = "<img>" + "<IMG_CONTEXT>" * 16 + "</img>"
    frames = "".join(
        f"Frame-{number}: {tile}\n" for of_clip in (4, 2) for number in range(1, of_clip + 1)
    )
    assert f"user\n{frames}Image-1: <img>" in text
    assert text.endswith("what moves both<|im_end|>\n<|im_start|>assistant\n")
    assert encoded.frames == [[4, 2], [], [4]]
    assert [len(areas) for areas in encoded.visible_areas] == [8, 1, 4]
    assert encoded.box_frames[0] == family.encode(processor, [sample(images=images)]).box_frames[0]
    # pixels stand in the order of the prompts
    alone = [
        family.encode(processor, [each]).inputs["pixel_values"]
        for each in (sample(both.videos[0]), sample(both.videos[1]), sample(images=images))
    ]
    pixels = encoded.inputs["pixel_values"]
    assert torch.equal(pixels[: sum(map(len, alone))], torch.cat(alone))


def test_frames_are_normalised_as_images_are(internvl) -> None:
    family, processor = internvl
    image = noise(32, 32)
    frame = Video(frames=(image,), times=(0.0,))
    pixels = family.encode(processor, [sample(frame)]).inputs["pixel_values"]
    expected = processor.images(image, max_patches=1, return_tensors="pt")["pixel_values"]
    assert torch.allclose(pixels, expected, atol=1e-5)


def test_a_budget_holds_for_each_frame(internvl) -> None:
    family, processor = internvl
    model = model_of("internvl")
    samples = [sample(clip(9), images=[noise(30, 30)]), sample(clip(2), name="longer")]

    def run(batch: Any) -> Any:
        inputs = family.encode(processor, batch).inputs
        ids = inputs["input_ids"]
        context = processor.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
        token = model.config.image_token_id
        inputs["input_ids"] = torch.where(ids == context, token, ids % 80 + 2)
        with pruned(model, IVCPrune(keep_ratio=0.5, layer=3), family=family) as session:
            model.generate(**inputs, max_new_tokens=2, do_sample=False)
        return session

    together = run(samples)
    assert [len(layout.images) for layout in together.layouts] == [5, 2]
    for number, each in enumerate(samples):
        alone = run([each])
        assert torch.equal(alone.kept[0], together.kept[number])
        for image in alone.layouts[0].images[:4]:
            assert torch.isin(alone.kept[0], image.tokens).sum() == round(0.5 * image.length)
    joined = joined_frames(together.layouts[0].images, [4])
    assert [[grid.kind for grid in image.grids] for image in joined] == [["frame"] * 4, ["image"]]
    assert joined[0].length == 4 * joined[1].length


def test_bad_numbers_and_texts_are_refused(internvl, tmp_path) -> None:
    with pytest.raises(UserError, match=r"^model\.frames must be at least 1; got 0\.$"):
        InternVL(frames=0)
    family, processor = internvl
    with pytest.raises(OSError, match="No such file"):
        family.encode(processor, [sample(Video(path=tmp_path / "a.mp4"))])
    read = family.read_clip(processor, Video(path=write_clip(tmp_path / "a.mp4", frames=3)))
    assert read.frames.shape == (3, 3, 32, 32)
    assert read.image(0).size == (160, 32)  # as wide as the clip
    assert isinstance(read.image(2), Image.Image)
