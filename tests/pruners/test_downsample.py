"""Smaller images: sizes, boxes, refusals, and what a run, a notebook and a benchmark record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from processing import FAMILIES, setup

import ivcp
from ivcp import pruned
from ivcp.bench.rotation import RotatedRuns
from ivcp.core.errors import UserError
from ivcp.core.resizing import encode_for
from ivcp.core.selection import budget
from ivcp.core.types import Sample
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.pruners.compose import Compose
from ivcp.pruners.downsample import LEAST_SIDE, Downsample
from ivcp.pruners.fastv import FastV
from ivcp.pruners.none import NoPruning
from ivcp.pruners.plus_ivc import PlusIVC

SIZES = [(140, 140), (90, 130), (131, 57), (200, 33), (64, 64), (31, 97)]


def noise(size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ask(*sizes: tuple[int, int]) -> Sample:
    return Sample(
        id="s",
        task="grounding",
        images=tuple(map(noise, sizes)),
        question="it",
        answer=(0, 0, 1, 1),
    )


@pytest.mark.parametrize("name", ["qwen2vl", "qwen25vl", "qwen3vl"])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_largest_size_within_the_budget(
    name: str, ratio: float, size: tuple[int, int], tmp_path: Path
) -> None:
    """Compared with every size of the longer side, from the largest to the smallest."""
    family, processor = setup(name, tmp_path)

    def count(sizes: Any) -> float:
        return family.expected_tokens(processor, sizes)

    (found,) = Downsample(keep_ratio=ratio).image_sizes([size], count)
    total, longer = count([size]), max(size)
    sizes = [
        tuple(max(1, round(side * length / longer)) for side in size)
        for length in range(longer, 0, -1)
    ]
    sizes = [each for each in sizes if min(each) >= LEAST_SIDE]
    goal = max(budget(ratio, round(total)), min(count([each]) for each in sizes))
    assert found == next(each for each in sizes if count([each]) <= goal)
    assert 0 < count([found]) < total


ONE_SIZE = ("llava15", "deepseekvl", "idefics3", "smolvlm", "gemma3")
"""Families whose processor brings every image to one size, or to one longest edge."""


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_promised_is_what_the_processor_gives(name: str, tmp_path: Path) -> None:
    """Counts of the smaller image, its boxes and areas, for every family that can have fewer."""
    family, processor = setup(name, tmp_path)
    pruner = Downsample(keep_ratio=0.4)
    reduced = 0
    for size in [*SIZES, (300, 300), (400, 100)]:
        sample = ask(size)
        plain = family.encode(processor, [sample])
        try:
            smaller = encode_for(pruner, family, processor, [sample])
        except UserError:
            continue
        reduced += 1
        rows = [encoded.inputs["input_ids"].shape[1] for encoded in (plain, smaller)]
        assert smaller.saved_tokens == [rows[0] - rows[1]]
        (frame,), (before,) = smaller.box_frames, plain.box_frames
        assert (frame.image_width, frame.image_height) == size
        for box in [(0, 0, 1, 1), (0.3, 0.1, 0.6, 0.9)]:  # fractions of the image
            written = [
                (
                    each.left + box[0] * each.width, each.top + box[1] * each.height,
                    each.left + box[2] * each.width, each.top + box[3] * each.height,
                )
                for each in (frame, before)
            ]  # fmt: skip
            pixels = [frame.to_pixels(written[0]), before.to_pixels(written[1])]
            assert pixels[0] == pytest.approx(pixels[1], abs=1e-6)
        assert np.allclose(smaller.visible_areas, plain.visible_areas)
    assert (reduced > 0) == (name not in ONE_SIZE)


def test_a_box_of_the_smaller_image_is_in_pixels_of_the_original() -> None:
    family = Qwen25VL(path=None)
    processor = family.load()[1]
    encoded = encode_for(Downsample(keep_ratio=0.25), family, processor, [ask((192, 192))])
    assert encoded.inputs["image_grid_thw"].tolist() == [[1, 12, 12]]  # 96 x 96 pixels
    assert encoded.box_frames[0].to_pixels((12, 24, 48, 96)) == (24, 48, 96, 192)


def test_several_images_each_have_their_budget() -> None:
    family = Qwen25VL(path=None)
    processor = family.load()[1]
    sample = ask((192, 192), (320, 160), (96, 96))
    encoded = encode_for(Downsample(keep_ratio=0.3), family, processor, [sample])
    tokens = [rows * columns // 4 for _, rows, columns in encoded.inputs["image_grid_thw"].tolist()]
    assert tokens == [36, 55, 9]  # at most 43 of 144, 60 of 200, 11 of 36
    assert encoded.saved_tokens == [144 + 200 + 36 - sum(tokens)]


def test_everything_and_no_image_stay_as_they_are() -> None:
    family = Qwen25VL(path=None)
    processor = family.load()[1]
    for pruner, sample in (
        (Downsample(keep_ratio=1.0), ask((192, 192))), (Downsample(keep_ratio=0.3), ask()),
    ):  # fmt: skip
        plain = family.encode(processor, [sample])
        same = encode_for(pruner, family, processor, [sample])
        assert all(torch.equal(plain.inputs[name], same.inputs[name]) for name in plain.inputs)
        assert same.saved_tokens == [0]
        assert same.box_frames == plain.box_frames


def test_a_model_of_one_size_is_refused(tmp_path: Path) -> None:
    family, processor = setup("llava15", tmp_path)
    with pytest.raises(
        UserError, match=r"cannot reduce the \d+ visual tokens of an image of 140 x"
    ):
        encode_for(Downsample(keep_ratio=0.5), family, processor, [ask((140, 140))])


def test_counts_that_cannot_be_foretold_are_refused(tmp_path: Path) -> None:
    """InternVL doubles the first image of MMMU, which Downsample cannot know."""
    family, processor = setup("internvl", tmp_path)
    for benchmark in ("", "MMMU_DEV_VAL"):
        sample = replace(ask((140, 140)), benchmark=benchmark)
        if not benchmark:
            assert encode_for(Downsample(keep_ratio=0.5), family, processor, [sample]).image_tokens
            continue
        with pytest.raises(UserError, match="rule of its own for images of MMMU_DEV_VAL"):
            encode_for(Downsample(keep_ratio=0.5), family, processor, [sample])


def test_it_is_refused_where_images_are_processed_already() -> None:
    model, _ = Qwen25VL(path=None).load()
    message = r"^Downsample resizes images before they are processed.*use ivcp\.ask"
    with pytest.raises(UserError, match=message), pruned(model, Downsample()):
        raise AssertionError("never inside")


def test_it_is_no_part_of_other_methods() -> None:
    with pytest.raises(UserError, match="must prune to a ratio; Downsample does not"):
        Compose(parts=(Downsample(), FastV(layer=2)))
    with pytest.raises(UserError, match="base must be a method that prunes to a ratio"):
        PlusIVC(base=Downsample())


def test_a_run_counts_against_the_original_image(tmp_path: Path) -> None:
    settings = {"limit": 3, "batch_size": 2, "quiet": True, "pictures": 1, "workers": 0}
    plain = ivcp.evaluate("tiny", folder=tmp_path / "none", **settings)
    run = ivcp.evaluate("tiny", Downsample(keep_ratio=0.3), folder=tmp_path / "smaller", **settings)
    tokens, efficiency = run.results.tokens, run.results.efficiency
    assert (tokens.visual, tokens.kept, tokens.keep_ratio) == (144, 36, 0.25)
    assert tokens.layer_average_ratio == 0.25
    assert tokens.prompt == plain.results.tokens.prompt
    assert (run.results.run.ratio, run.results.run.unpruned) == (0.3, False)
    before = plain.results.efficiency
    assert efficiency.prefill_flops_ratio == pytest.approx(
        efficiency.prefill_flops_formula / before.prefill_flops_formula
    )
    assert efficiency.kv_cache_ratio == pytest.approx(
        efficiency.kv_cache_bytes / before.kv_cache_bytes
    )
    assert 0.2 < efficiency.prefill_flops_ratio < 0.4
    for prediction, other in zip(run.predictions(), plain.predictions(), strict=True):
        assert prediction.image_size == other.image_size == (192, 192)
        (image,) = prediction.images
        assert (image.grids[0].rows, image.grids[0].columns) == (6, 6)
        assert image.grids[0].area == (0, 0, 1, 1)
        assert prediction.kept == tuple(image.tokens.tolist())
    (picture,) = (tmp_path / "smaller").glob("**/*.png")
    sizes = [Image.open(path).width for path in (picture, *(tmp_path / "none").glob("**/*.png"))]
    assert sizes[0] == sizes[1], "drawn on the original image"
    row = ivcp.compare_runs(tmp_path).iloc[0]
    assert (row["pruner"], row["unpruned"]) == ("downsample", plain.value)


def test_a_run_of_a_model_of_one_size_says_why_it_fails(tmp_path: Path) -> None:
    class OneSize(Qwen25VL):
        def expected_tokens(self, processor: Any, sizes: Any) -> float:
            return 144.0 * len(sizes)

    with pytest.raises(UserError, match=r"All 2 samples failed.*Downsample cannot reduce the 144"):
        ivcp.evaluate(
            OneSize(path=None), Downsample(keep_ratio=0.3), folder=tmp_path, limit=2, quiet=True,
            workers=0, pictures=0,
        )  # fmt: skip


def test_a_notebook_gets_the_answer_to_the_smaller_image() -> None:
    model, processor = ivcp.load()
    image = ivcp.load_dataset("shapes")[3].images[0]
    reply = ivcp.ask(model, processor, image, "it", task="grounding", pruner=Downsample())
    small = image.resize((128, 128), Image.Resampling.BICUBIC)
    plain = ivcp.ask(model, processor, small, "it", task="grounding")
    assert reply.text == plain.text
    (summary,) = reply.session.summary()
    assert (summary["visual_tokens"], summary["kept_tokens"]) == (144, 64)
    assert summary["keep_ratio"] == pytest.approx(64 / 144)
    assert summary["prompt_tokens"] == plain.session.summary()[0]["prompt_tokens"] + 80
    assert "64 of 144 visual tokens kept" in repr(reply)
    assert reply.draw().width >= 480


def test_a_benchmark_runs_the_smaller_image_beside_the_original() -> None:
    family = Qwen25VL(path=None, dtype="float32")
    model, processor = family.load()
    sample, counts = ask((192, 192)), {}
    for pruner in (NoPruning(), Downsample(keep_ratio=0.25)):
        inputs, smaller = (
            encode_for(each, family, processor, [sample] * 2).inputs for each in (None, pruner)
        )
        runs = RotatedRuns(model, family, [pruner], inputs, pruned_inputs=[smaller], question="it")
        counts[type(pruner)] = runs.counts(1)
        assert None not in next(runs.repeats(1, 0))
    plain, found = counts[NoPruning], counts[Downsample]
    assert (found.visual_tokens.unpruned, found.visual_tokens.pruned) == (144, 36)
    assert found.layer_average_tokens.ratio == 0.25
    for name in ("prompt_tokens", "kv_cache_bytes", "prefill_flops_formula"):
        assert getattr(found, name).unpruned == getattr(plain, name).unpruned
        assert getattr(found, name).ratio < getattr(plain, name).ratio == 1
