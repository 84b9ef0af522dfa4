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
from PIL import Image
from processing import FAMILIES, setup
from torch import Tensor
from transformers import LlavaNextProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from ivcp.core.family import BoxFrame
from ivcp.core.layout import Grid, PromptLayout
from ivcp.core.types import Box, Sample
from ivcp.models.internvl import arrangement
from ivcp.models.llava15 import square_frame
from ivcp.testing import END, IMAGE, PAD, SMALL, START

QWENS = ("qwen2vl", "qwen25vl", "qwen3vl")
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in FAMILIES),
    ("llava15", {"square": "crop"}),
    ("llava15", {"box_frame": "image"}),
    ("internvl", {"min_tiles": 2, "max_tiles": 12}),
]


def named(case: Any) -> str:
    return "-".join([case[0], *map(str, case[1].values())])


MARKS = {  # ids in the tests' models
    "<|image_pad|>": IMAGE, "<|vision_start|>": START, "<|vision_end|>": END, "<image>": IMAGE,
    "<IMG_CONTEXT>": IMAGE, "<img>": START, "</img>": END, "<image_placeholder>": IMAGE,
}  # fmt: skip


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
    for token, own in MARKS.items():
        known[ids == processor.tokenizer.convert_tokens_to_ids(token)] = own
    known[inputs["attention_mask"] == 0] = PAD
    return {**inputs, "input_ids": known}


def laid_out(name: str, family: Any, inputs: dict[str, Tensor]) -> list[PromptLayout]:
    mask = inputs["attention_mask"].bool()
    rows = [row[there] for row, there in zip(inputs["input_ids"], mask, strict=True)]
    model = SimpleNamespace(config=config(name))
    return family.layouts(model, rows, None, {**inputs, **family.layout_inputs(model, inputs)})


def library_counts(name: str, processor: Any, size: tuple[int, int], images_there: int) -> int:
    """Image tokens of an image by the library's own code, so far as it knows the model."""
    width, height = size
    images = processor.images
    if name == "deepseekvl2":
        return images.token_count(images.crop(size, images_there))
    if name in QWENS:
        return images.get_number_of_image_patches(height, width, {}) // images.merge_size**2
    if name == "internvl":
        most = min(images.max_patches, 64 // images_there)  # InternVL: 64 tiles a sample
        limits = {"min_patches": images.min_patches, "max_patches": most}
        patches = images.get_number_of_image_patches(height, width, limits)
        return config(name).image_seq_length * patches
    if name == "llavanext":
        own = object.__new__(LlavaNextProcessor)
        own.image_processor, own.patch_size, own.num_additional_image_tokens = images, 4, 1
        return own._get_number_of_features(height, width, 24, 24) - 1
    return (24 // 4) ** 2


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
            [library_counts(name, processor, i.size, len(s.images)) for i in s.images]
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
    if name in QWENS:  # what `generate` passes instead of the grids
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


def raw(processor: Any, pixels: Tensor) -> Tensor:
    """(..., 3, N, N) normalised pixels in 0 .. 1."""
    images = processor.images
    if hasattr(images, "mean"):  # DeepSeek-VL2's
        return pixels * images.std + images.mean
    mean, std = (torch.tensor(v)[:, None, None] for v in (images.image_mean, images.image_std))
    return pixels * std + mean


def qwen_picture(inputs: dict[str, Tensor]) -> Tensor:
    """(3, height, width) of a single image, from its patches."""
    _, rows, columns = inputs["image_grid_thw"][0].tolist()
    patches = inputs["pixel_values"].view(rows // 2, columns // 2, 2, 2, 3, 2, 4, 4)[
        :, :, :, :, :, 0
    ]
    return patches.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, 4 * rows, 4 * columns)


def anyres_picture(pixels: Tensor, grid: Grid, size: tuple[int, int], name: str) -> Tensor:
    """(3, height, width) of the canvas, cut to the grid's tokens."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = select_best_resolution(size[::-1], config(name).image_grid_pinpoints)
    tiles = pixels[1 : 1 + height * width // 24**2].view(height // 24, width // 24, 3, 24, 24)
    canvas = tiles.permute(2, 0, 3, 1, 4).reshape(3, height, width)
    top, left = (height // 4 - grid.rows) // 2 * 4, (width // 4 - grid.columns) // 2 * 4
    return canvas[:, top : top + 4 * grid.rows, left : left + 4 * grid.columns]


def views(
    name: str,
    inputs: dict[str, Tensor],
    processor: Any,
    layout: PromptLayout,
    shown: Box,
    size: Any,
) -> list[tuple[Tensor, Grid, Box]]:
    """Each grid's pixels and the part of the image that they are said to show."""
    grids = layout.images[0].grids
    if name in QWENS:
        return [(raw(processor, qwen_picture(inputs)), grids[0], grids[0].area)]
    pixels = raw(processor, inputs["pixel_values"])
    if name == "internvl":
        return [(tile, grid, grid.area) for tile, grid in zip(pixels, grids, strict=True)]
    if name == "llavanext":
        made = [(pixels[0, 0], grids[0], grids[0].area)]
        for grid in grids[1:]:
            made.append((anyres_picture(pixels[0], grid, size, name), grid, grid.area))
        return made
    if name == "deepseekvl2":
        wide, high = inputs["images_spatial_crop"][0].tolist()
        tiles = pixels[1:].view(high, wide, 3, 24, 24).permute(2, 0, 3, 1, 4)
        local = tiles.reshape(3, 24 * high, 24 * wide)
        return [(pixels[0], grids[0], grids[0].area), (local, grids[1], grids[1].area)]
    return [(pixels[0], grids[0], shown)]


FILL = {  # blue of padding
    "llava15": 0x68 / 255, "llavanext": 0.0, "deepseekvl": 127 / 255, "deepseekvl2": 127 / 255,
}  # fmt: skip


@pytest.mark.parametrize(("name", "fields"), SETTINGS, ids=map(named, SETTINGS))
def test_what_is_shown_lies_where_the_layout_says(name, fields, tmp_path):
    family, processor = setup(name, tmp_path, **fields)
    for size in sizes():
        encoded = family.encode(processor, [ask(ramp(size))])
        inputs = for_the_model(name, processor, encoded.inputs)
        (layout,) = laid_out(name, family, inputs)
        shown = encoded.visible_areas[0][0]
        covered = []
        for pixels, grid, (x1, y1, x2, y2) in views(name, inputs, processor, layout, shown, size):
            height, width = pixels.shape[1:]
            x = (x1 + (torch.arange(width) + 0.5) / width * (x2 - x1)).expand(height, width)
            y = (y1 + (torch.arange(height) + 0.5) / height * (y2 - y1))[:, None].expand(
                height, width
            )
            # a pixel before or behind resizing; half a token where padding is cut off by tokens
            across, down = (
                (2 * grid.columns, 2 * grid.rows) if name == "llavanext" else (width, height)
            )
            slack_x = max((x2 - x1) / across, 1 / size[0]) + 0.01
            slack_y = max((y2 - y1) / down, 1 / size[1]) + 0.01
            inside = ((x - 0.5).abs() < 0.5 - slack_x) & ((y - 0.5).abs() < 0.5 - slack_y)
            assert ((pixels[0] - x).abs()[inside] < slack_x).all(), (size, grid)
            assert ((pixels[1] - y).abs()[inside] < slack_y).all(), (size, grid)
            assert (pixels[2][inside] > 0.97).all(), (size, grid)
            outside = ((x - 0.5).abs() > 0.5 + slack_x) | ((y - 0.5).abs() > 0.5 + slack_y)
            assert ((pixels[2][outside] - FILL.get(name, 0)).abs() < 0.1).all(), (size, grid)
            covered.append((x1, y1, x2, y2))
            if name == "llavanext":  # cut to within half a token of the image's edges
                assert max(abs(x1), abs(1 - x2)) <= 0.5001 * (x2 - x1) / grid.columns
                assert max(abs(y1), abs(1 - y2)) <= 0.5001 * (y2 - y1) / grid.rows
        if name == "internvl" and len(covered) > 1:
            tiles = covered[:-1]
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


@cache
def resized(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """Width and height that the published limits give."""
    pixels = {28: (4 * 28**2, 16384 * 28**2), 32: (65536, 16777216)}[factor]
    height, width = smart_resize(size[1], size[0], factor, *pixels)
    return width, height


def pixels_of_the_resized(box: np.ndarray, size: tuple[int, int]) -> list[int]:
    scale = np.array(resized(size, 28)) / size
    return np.round(box * np.tile(scale, 2)).astype(int).tolist()


def thousandths(box: np.ndarray, size: tuple[int, int]) -> list[int]:
    return np.round(box / np.tile(size, 2) * 1000).astype(int).tolist()


def up_to_999(box: np.ndarray, size: tuple[int, int]) -> list[int]:
    return np.round(box / np.tile(size, 2) * 999).astype(int).tolist()


def fractions(box: np.ndarray, size: tuple[int, int]) -> list[float]:
    return np.round(box / np.tile(size, 2), 2).tolist()


def fractions_of_the_square(box: np.ndarray, size: tuple[int, int]) -> list[float]:
    side, margin = max(size), (max(size) - np.array(size)) // 2
    return np.round((box + np.tile(margin, 2)) / side, 2).tolist()


FENCED = '```json\n[{{"bbox_2d": [{}, {}, {}, {}], "label": "it"}}]\n```'
WRITTEN: list[tuple[str, dict[str, Any], Any, str, float]] = [
    # family, fields, what a perfect model writes, how, mean IoU that rounding leaves
    ("qwen2vl", {}, thousandths, "<|box_start|>({},{}),({},{})<|box_end|>", 0.997),
    ("qwen25vl", {}, pixels_of_the_resized, FENCED, 0.995),
    ("qwen3vl", {}, thousandths, FENCED, 0.997),
    ("internvl", {}, thousandths, "<ref>it</ref><box>[[{}, {}, {}, {}]]</box>", 0.997),
    ("llava15", {"box_frame": "image"}, fractions, "[{:.2f}, {:.2f}, {:.2f}, {:.2f}]", 0.973),
    ("llava15", {}, fractions_of_the_square, "[{}, {}, {}, {}]", 0.967),
    ("llavanext", {}, fractions, "[{:.2f}, {:.2f}, {:.2f}, {:.2f}]", 0.973),
    ("deepseekvl", {}, fractions, "[{:.2f}, {:.2f}, {:.2f}, {:.2f}]", 0.973),
    ("deepseekvl2", {}, up_to_999, "<|ref|>it<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>", 0.997),
]


def frame_of(name: str, family: Any, size: tuple[int, int]) -> BoxFrame:
    """The frame by the family's own code, of an image of this size, without resizing one."""
    if name in QWENS:
        return family.frame(*resized(size, 32 if name == "qwen3vl" else 28), size)
    if name == "llava15" and family.box_frame == "padded":
        return square_frame(size, max(size))
    units = {"internvl": 1000, "deepseekvl2": 999}.get(name, 1)
    return BoxFrame(units, units, *size)


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
        read.append(frame_of(name, family, size).to_pixels(answer))
    ious = overlap(np.array(read), boxes)
    assert ious.mean() == pytest.approx(expected, abs=0.0015)
    assert (ious < 0.5).mean() < 1e-3
    if name == "qwen25vl":  # a frame of original pixels is seen
        answers = [pixels_of_the_resized(b, tuple(s)) for s, b in zip(images.tolist(), boxes)]  # noqa: B905
        assert overlap(np.array(answers), boxes).mean() == pytest.approx(0.943, abs=0.001)


@needs_boxes
@pytest.mark.parametrize(
    ("name", "fields"), [case[:2] for case in WRITTEN], ids=map(named, WRITTEN)
)
def test_encode_gives_these_frames(name, fields, tmp_path):
    """With the published sizes, on images of real sizes."""
    published = {
        "qwen2vl": {"patch_size": 14, "min_pixels": 4 * 28**2, "max_pixels": 16384 * 28**2},
        "qwen25vl": {"patch_size": 14, "min_pixels": 4 * 28**2, "max_pixels": 16384 * 28**2},
        "qwen3vl": {
            "patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216},
        },
    }  # fmt: skip
    family, processor = setup(name, tmp_path, published=published.get(name, {}), **fields)
    images, _ = real_boxes()
    some = [tuple(size) for size in np.unique(images, axis=0)[::65].tolist()]
    for size in some:
        encoded = family.encode(processor, [ask(Image.new("RGB", size))])
        assert encoded.box_frames == [frame_of(name, family, size)]


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
