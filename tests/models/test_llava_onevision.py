"""LLaVA-OneVision at its published size: tokens and newlines as the library makes them."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionProcessor
from transformers.models.llava_onevision import modeling_llava_onevision as library

from ivcp.models.llava_onevision import image_layout, video_layout
from ivcp.models.llavanext import anyres_tokens
from ivcp.models.published import PUBLISHED

SETTINGS = PUBLISHED["llava-hf/llava-onevision-qwen2-7b-ov-hf"]
CONFIG = LlavaOnevisionConfig(**SETTINGS)


def sizes() -> list[tuple[int, int]]:
    """Heights and widths."""
    draw = random.Random(5)
    made = [(1, 1), (1, 900), (900, 1), (384, 384), (2304, 2304), (480, 640), (1080, 1920)]
    return [*made, *((draw.randint(1, 2600), draw.randint(1, 2600)) for _ in range(60))]


@pytest.mark.parametrize("size", sizes())
def test_a_single_image(size: tuple[int, int]) -> None:
    tiles = library.image_size_to_num_patches(size, CONFIG.image_grid_pinpoints, 384)
    (packed,), (length,) = library.LlavaOnevisionModel.pack_image_features(
        SimpleNamespace(config=CONFIG),
        [torch.ones(tiles, 27 * 27, 1)],
        [size],
        image_newline=torch.zeros(1),
    )
    layout = image_layout(CONFIG, size, True, 0)
    assert anyres_tokens(CONFIG, size) == length
    assert packed[:, 0].nonzero()[:, 0].tolist() == layout.tokens.tolist()
    own = object.__new__(LlavaOnevisionProcessor)
    own.image_processor = SimpleNamespace(image_grid_pinpoints=CONFIG.image_grid_pinpoints)
    own.num_image_tokens, own.vision_aspect_ratio = 27 * 27, "anyres_max_9"
    assert own._get_number_of_features(*size, 384, 384) == length


def test_one_of_several_images_and_a_video() -> None:
    (packed,), _ = library.LlavaOnevisionModel.pack_image_features(
        SimpleNamespace(config=CONFIG),
        [torch.ones(1, 27 * 27, 1)],
        [(400, 640)],
        image_newline=torch.zeros(1),
    )
    layout = image_layout(CONFIG, (400, 640), False, 0)
    assert packed[:, 0].nonzero()[:, 0].tolist() == layout.tokens.tolist()
    assert layout.grids[0].area == pytest.approx((0, -0.3, 1, 1.3))
    video = video_layout(CONFIG, 32, 7)
    assert video.length + 1 == 6273  # 196 a frame, and a newline: arXiv 2408.03326, figure 3
    assert video.tokens.tolist() == list(range(7, 7 + 32 * 196))
    pooled = library.LlavaOnevisionModel.apply_pooling(
        SimpleNamespace(config=CONFIG), torch.ones(2, 27 * 27, 1)
    )
    assert pooled.shape == (2, 14 * 14, 1)
