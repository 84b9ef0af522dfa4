"""Idefics3, and what the small models of SmolVLM share with it."""

from __future__ import annotations

import torch

from ivcp.models.idefics3 import Idefics3
from ivcp.testing.small import IMAGE, LLAMA, START, VISION, Draw, ImagePrompt, SmallFamily

NEWLINE, GLOBAL, TILE = 80, 81, 82
"""Token ids: a line break, the mark of a global view, and those of tiles from here on."""


def views(shape: tuple[int, int], side: int) -> tuple[list[int], list[int]]:
    """Token ids of an image of `shape` tiles and its global view, and where visual tokens are."""
    rows, columns = shape if shape != (1, 1) else (0, 0)
    ids: list[int] = []
    visual: list[int] = []

    def add(mark: int) -> None:
        ids.extend([START, mark])
        visual.extend(range(len(ids), len(ids) + side * side))
        ids.extend([IMAGE] * (side * side))

    for row in range(rows):
        for column in range(columns):
            add(TILE + row * columns + column)
        ids.append(NEWLINE)
    if rows:
        ids.append(NEWLINE)
    add(GLOBAL)
    return [*ids, START], visual


def image(shape: tuple[int, int], draw: Draw, side: int = 3, edge: int = 24) -> ImagePrompt:
    """An image of `shape` tiles and its global view, `side` x `side` tokens each."""
    ids, visual = views(shape, side)
    count = len(visual) // side**2
    return ImagePrompt(ids, torch.tensor(visual), {"pixel_values": draw(count, 1, 3, edge, edge)})


FAMILY = SmallFamily(
    family=Idefics3,
    settings={
        "text_config": LLAMA,
        "vision_config": {**VISION, "initializer_range": 0.25},
        "image_token_id": IMAGE,
        "scale_factor": 2,
        "tie_word_embeddings": False,
    },
    image=image,
    images=((2, 2), (1, 1), (3, 1), (1, 2)),
)
