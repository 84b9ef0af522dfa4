"""What the image processors do to images, and what the families say about it: counts and places."""

from __future__ import annotations

import csv
import random
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from expected import EXPECTED
from expected.qwen25vl import pixels_of_the_resized
from PIL import Image
from processing import FAMILIES, setup
from torch import Tensor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

from ivcp.core.layout import PromptLayout
from ivcp.core.types import Sample
from ivcp.models.internvl import arrangement
from ivcp.testing import IMAGE, PAD, SMALL

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    (name, fields) for name in FAMILIES for fields in ({}, *EXPECTED[name].variants)
]


def named(case: Any) -> str:
    return "-".join([case[0], *map(str, case[1].values())])


def sizes() -> list[tuple[int, int]]:
    draw = random.Random(7)
    made = [(1, 1), (1, 2), (3, 1), (2, 2), (1, 60), (60, 1), (1, 150), (150, 1), (3, 3), (3, 40)]
    made += [(10 * n, n) for n in range(1, 13)] + [(n, 10 * n) for n in range(1, 13)]
    made += [(24 * a, 24 * b) for a in (1, 2, 3) for b in (1, 2, 3)]
    while len(made) < 220:
        made.append((draw.randint(1, 140), draw.randint(1, 140)))
    return made


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ramp(size: tuple[int, int]) -> Image.Image:
    """Red tells the place along the width, green along the height; blue is full."""
    width, height = size
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    pixels[..., 0] = np.round((np.arange(width) + 0.5) / width * 255)
    pixels[..., 1] = np.round((np.arange(height) + 0.5) / height * 255)[:, None]
    return Image.fromarray(pixels)


def ask(*images: Image.Image) -> Sample:
    return Sample(id="s", task="grounding", images=images, question="cat", answer="")


@cache
def config(name: str) -> Any:
    return SMALL[name].config(layers=1)


def for_the_model(name: str, processor: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inputs with the token ids that the tests' models know."""
    ids = inputs["input_ids"]
    known = ids % 80 + 3
    for key, token in EXPECTED[name].ids.items():
        own = getattr(processor.config, key)
        known[ids == processor.tokenizer.convert_tokens_to_ids(token)] = own
    known[inputs["attention_mask"] == 0] = PAD
    return {**inputs, "input_ids": known}


def laid_out(name: str, family: Any, inputs: dict[str, Tensor]) -> list[PromptLayout]:
    mask = inputs["attention_mask"].bool()
    rows = [row[there] for row, there in zip(inputs["input_ids"], mask, strict=True)]
    model = SimpleNamespace(config=config(name))
    return family.layouts(model, rows, None, {**inputs, **family.layout_inputs(model, inputs)})


@pytest.mark.parametrize(("name", "fields"), SETTINGS, ids=map(named, SETTINGS))
def test_counts_agree_with_the_library_and_the_layout(name, fields, tmp_path):
    family, processor = setup(name, tmp_path, **fields)
    left, number = sizes(), 0
    while left:
        count = number % 4  # none to three images a sample
        samples = [ask(*map(noise, left[:count])), ask(), ask(*map(noise, left[count:7]))]
        encoded = family.encode(processor, samples)
        inputs = for_the_model(name, processor, encoded.inputs)
        layouts = laid_out(name, family, inputs)
        expected = [
            [EXPECTED[name].token_count(processor, i.size, len(s.images)) for i in s.images]
            for s in samples
        ]
        for sample, counts in zip(samples, expected, strict=True):
            shown = [image.size for image in sample.images]
            assert not shown or family.expected_tokens(processor, shown) == sum(counts)
        for layout, counts, row in zip(layouts, expected, inputs["input_ids"], strict=True):
            row = row[-layout.length :]
            assert len(layout.images) == len(counts)
            visual = [image.tokens for image in layout.images]
            structural = layout.markers[row[layout.markers] == IMAGE]
            tokens = torch.cat([*visual, structural])
            assert len(tokens.unique()) == len(tokens) == sum(counts)
            assert (row[tokens] == IMAGE).all()
            assert (row == IMAGE).sum() == sum(counts)
            assert tokens[: sum(map(len, visual))].diff().gt(0).all()
        for sample, frame in zip(samples, encoded.box_frames, strict=True):
            if sample.images:
                assert (frame.image_width, frame.image_height) == sample.images[-1].size
        left, number = left[7:], number + 1


@pytest.mark.parametrize("name", FAMILIES)
def test_the_models_take_what_is_encoded(name, tmp_path):
    family, processor = setup(name, tmp_path)
    model = SMALL[name].model(layers=1)
    some = [(1, 1), (1, 150), (150, 1), (50, 40), (24, 48), (120, 12), (9, 90), (33, 71), (3, 3)]
    samples = [ask(*map(noise, some[:2])), ask(), ask(noise(some[2])), ask(*map(noise, some[3:]))]
    inputs = for_the_model(name, processor, family.encode(processor, samples).inputs)
    with torch.no_grad():
        logits = model(**inputs, logits_to_keep=1).logits
    assert logits.isfinite().all()
    if hasattr(model.model, "get_rope_index"):  # what `generate` passes instead of the grids
        positions, _ = model.model.get_rope_index(
            inputs["input_ids"], inputs["mm_token_type_ids"], inputs["image_grid_thw"],
            attention_mask=inputs["attention_mask"],
        )  # fmt: skip
        mask = inputs["attention_mask"].bool()
        rows = [row[there] for row, there in zip(inputs["input_ids"], mask, strict=True)]
        given = [positions[:, n, there] for n, there in enumerate(mask)]
        for one, other in zip(
            family.layouts(model, rows, given, {}), family.layouts(model, rows, None, inputs),
            strict=True,
        ):  # fmt: skip
            assert one.images == other.images


# --- where things lie: ramps are found where the layout says


@pytest.mark.parametrize(("name", "fields"), SETTINGS, ids=map(named, SETTINGS))
def test_what_is_shown_lies_where_the_layout_says(name, fields, tmp_path):
    family, processor = setup(name, tmp_path, **fields)
    expected = EXPECTED[name]
    for size in sizes():
        encoded = family.encode(processor, [ask(ramp(size))])
        inputs = for_the_model(name, processor, encoded.inputs)
        (layout,) = laid_out(name, family, inputs)
        grids = expected.shown(processor, inputs, layout, encoded.visible_areas[0][0], size)
        for pixels, grid, (x1, y1, x2, y2) in grids:
            height, width = pixels.shape[1:]
            x = (x1 + (torch.arange(width) + 0.5) / width * (x2 - x1)).expand(height, width)
            y = (y1 + (torch.arange(height) + 0.5) / height * (y2 - y1))[:, None].expand(
                height, width
            )
            # a pixel before or behind resizing; half a token where padding is cut off by tokens
            across, down = (
                (2 * grid.columns, 2 * grid.rows) if expected.padding_cut else (width, height)
            )
            slack_x = max((x2 - x1) / across, 1 / size[0]) + 0.01
            slack_y = max((y2 - y1) / down, 1 / size[1]) + 0.01
            inside = ((x - 0.5).abs() < 0.5 - slack_x) & ((y - 0.5).abs() < 0.5 - slack_y)
            assert ((pixels[0] - x).abs()[inside] < slack_x).all(), (size, grid)
            assert ((pixels[1] - y).abs()[inside] < slack_y).all(), (size, grid)
            assert (pixels[2][inside] > 0.97).all(), (size, grid)
            outside = ((x - 0.5).abs() > 0.5 + slack_x) | ((y - 0.5).abs() > 0.5 + slack_y)
            assert ((pixels[2][outside] - expected.fill).abs() < 0.1).all(), (size, grid)
            if expected.padding_cut:  # cut to within half a token of the image's edges
                assert max(abs(x1), abs(1 - x2)) <= 0.5001 * (x2 - x1) / grid.columns
                assert max(abs(y1), abs(1 - y2)) <= 0.5001 * (y2 - y1) / grid.rows
        tiles = [area for _, grid, area in grids if grid.kind == "tile"]
        if len(tiles) > 1:  # each its own grid
            assert sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in tiles) == pytest.approx(1)
            assert len(set(tiles)) == len(tiles)


@pytest.mark.parametrize("limits", [(1, 6), (1, 12), (3, 8)])
def test_the_order_of_tiles_is_read_off_their_pixels(limits, tmp_path):
    fewest, most = limits
    _, processor = setup("internvl", tmp_path, min_tiles=fewest, max_tiles=most)
    for seed, size in enumerate(sizes()):
        pixels = processor.images([noise(size, seed)], return_tensors="pt")["pixel_values"]
        order = get_optimal_tiled_canvas(size[::-1], (32, 32), fewest, most)
        if order != (1, 1) and size != (1, 1):  # one colour tells nothing
            assert arrangement(len(pixels) - 1, pixels) == order, size


def test_a_thin_image_loses_its_tiles_in_llavanext(tmp_path):
    """The library cuts all columns of a tile away, newlines stay."""
    family, processor = setup("llavanext", tmp_path)
    encoded = family.encode(processor, [ask(noise((1, 60)))])
    inputs = for_the_model("llavanext", processor, encoded.inputs)
    (layout,) = laid_out("llavanext", family, inputs)
    (image,) = layout.images
    assert [(g.rows, g.columns, g.kind) for g in image.grids] == [(6, 6, "image")]
    assert layout.markers.tolist() == [*range(image.stop, image.stop + 18)]


def test_padded_and_cut_squares_of_llava(tmp_path):
    wide, tall = noise((60, 20)), noise((20, 60))
    for fields, areas, frames in (
        ({"box_frame": "image"}, [(0, -1, 1, 2), (-1, 0, 2, 1)], [(1, 1, 0, 0)] * 2),
        ({}, [(0, -1, 1, 2), (-1, 0, 2, 1)],
         [(1, 1 / 3, 0, 1 / 3), (1 / 3, 1, 1 / 3, 0)]),
        ({"square": "crop"}, [(1 / 3, 0, 2 / 3, 1), (0, 1 / 3, 1, 2 / 3)],
         [(3, 1, -1, 0), (1, 3, 0, -1)]),
    ):  # fmt: skip
        family, processor = setup("llava15", tmp_path, **fields)
        encoded = family.encode(processor, [ask(wide), ask(tall)])
        for (shown,), area in zip(encoded.visible_areas, areas, strict=True):
            assert shown == pytest.approx(area)
        for f, frame in zip(encoded.box_frames, frames, strict=True):
            assert (f.width, f.height, f.left, f.top) == pytest.approx(frame)


# --- real boxes through every frame

REAL = Path(__file__).parents[2].parent / "shared" / "realdata"
needs_boxes = pytest.mark.skipif(
    not (REAL / "ref_one_expression_per_image.csv").exists(), reason="real boxes are absent"
)


@cache
def real_boxes() -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) sizes of images and (N, 4) boxes in their pixels."""
    with (REAL / "ref_one_expression_per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    image = np.array([[int(row["img_width"]), int(row["img_height"])] for row in rows])
    x, y, w, h = np.array([[float(row[key]) for key in "xywh"] for row in rows]).T
    return image, np.stack([x, y, x + w, y + h], 1)


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of (N, 4) boxes."""
    first, last = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    common = (last - first).clip(0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    return common / (areas[0] + areas[1] - common)


WRITTEN = [(name, *written) for name in FAMILIES for written in EXPECTED[name].written]


@needs_boxes
@pytest.mark.parametrize(
    ("name", "fields", "perfect", "text", "expected"), WRITTEN, ids=map(named, WRITTEN)
)
def test_perfect_answers_come_back_as_the_real_boxes(name, fields, perfect, text, expected):
    family = FAMILIES[name](**fields)
    images, boxes = real_boxes()
    assert len(boxes) == 30956
    read = []
    for size, box in zip(map(tuple, images.tolist()), boxes, strict=True):
        answer = family.parse_box(text.format(*perfect(box, size)))
        read.append(EXPECTED[name].frame(family, size).to_pixels(answer))
    ious = overlap(np.array(read), boxes)
    assert ious.mean() == pytest.approx(expected, abs=0.0015)
    assert (ious < 0.5).mean() < 1e-3


@needs_boxes
def test_pixels_of_the_resized_are_not_those_of_the_image():
    images, boxes = real_boxes()
    pairs = zip(map(tuple, images.tolist()), boxes, strict=True)
    answers = [pixels_of_the_resized(box, size) for size, box in pairs]
    assert overlap(np.array(answers), boxes).mean() == pytest.approx(0.943, abs=0.001)


@needs_boxes
@pytest.mark.parametrize(
    ("name", "fields"), [case[:2] for case in WRITTEN], ids=map(named, WRITTEN)
)
def test_encode_gives_these_frames(name, fields, tmp_path):
    """With the published sizes, on images of real sizes."""
    family, processor = setup(name, tmp_path, published=EXPECTED[name].full_size, **fields)
    images, _ = real_boxes()
    some = [tuple(size) for size in np.unique(images, axis=0)[::65].tolist()]
    for size in some:
        encoded = family.encode(processor, [ask(Image.new("RGB", size))])
        assert encoded.box_frames == [EXPECTED[name].frame(family, size)]


@pytest.mark.skipif(not (REAL / "derived/train2014").exists(), reason="photographs are absent")
def test_photographs_keep_their_tiles_in_order():
    images = GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448}, crop_to_patches=True, max_patches=12
    )
    files = sorted((REAL / "derived/train2014").glob("*.jpg"))[:12]
    assert files
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        pixels = images([image], return_tensors="pt")["pixel_values"]
        order = get_optimal_tiled_canvas(image.size[::-1], (448, 448), 1, 12)
        assert order == (1, 1) or arrangement(len(pixels) - 1, pixels) == order
