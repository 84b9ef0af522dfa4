"""Rendered scenes: coloured shapes on a noisy background, drawn from (seed, split, index) alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

SIDE = 192
"""Side of a scene in pixels: 12 x 12 visual tokens of 16 pixels for the packaged model."""

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SHAPES = ("circle", "square", "triangle", "cross", "star")
COLORS = {
    "red": (215, 40, 40),
    "green": (40, 165, 60),
    "blue": (50, 80, 220),
    "yellow": (235, 215, 50),
    "purple": (150, 60, 190),
    "orange": (240, 135, 30),
}
SIZES = {"small": (11, 14), "medium": (18, 22), "large": (27, 32)}  # half sides, in pixels
GAP = 3  # pixels between two objects


@dataclass(frozen=True)
class SceneObject:
    """One shape: what it is and the tight box around it, in pixels."""

    shape: str
    color: str
    size: str
    box: tuple[int, int, int, int]

    @property
    def center(self) -> tuple[float, float]:
        """`(x, y)` of the middle of the box, in pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Scene:
    """The objects of a scene and the seed of its pixels.

    Attributes:
        objects: Three to seven shapes that do not touch each other.
        pixel_seed: Seeds background, colour jitter and noise.
    """

    objects: tuple[SceneObject, ...]
    pixel_seed: tuple[int, ...]

    def render(self, moment: Sequence[SceneObject | None] | None = None) -> Image.Image:
        """The scene as an RGB image of `SIDE` x `SIDE` pixels; the same on every call.

        Args:
            moment: The objects as they are at one moment of a video, perhaps elsewhere; None for
                one that is not there. Background, colours and noise are those of the scene.
        """
        rng = np.random.default_rng(self.pixel_seed)
        ramp = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
        slopes = rng.uniform(-50, 50, size=(2, 3)).astype(np.float32)
        base = rng.uniform(70, 190) + rng.uniform(-15, 15, size=3).astype(np.float32)
        background = base + ramp[:, None, None] * slopes[0] + ramp[None, :, None] * slopes[1]
        canvas = Image.fromarray(background.clip(0, 255).astype(np.uint8))
        draw = ImageDraw.Draw(canvas)
        for item in self.objects if moment is None else moment:
            jitter = rng.integers(-14, 15, size=3)
            if item is None:
                continue
            red, green, blue = np.clip(np.array(COLORS[item.color]) + jitter, 0, 255).tolist()
            _draw(draw, item, (red, green, blue))
        grain = rng.normal(0, rng.uniform(3, 9), size=(SIDE, SIDE, 3)).astype(np.float32)
        return Image.fromarray((np.asarray(canvas) + grain).clip(0, 255).astype(np.uint8))


def make_scene(seed: int, split: Split, index: int) -> Scene:
    """The scene number `index` of a split; splits draw from separate random streams.

    Raises:
        ValueError: `split` is not one of train, val, test.
    """
    if split not in SPLITS:
        raise ValueError(f"Expected `split` to be one of {', '.join(SPLITS)}; got {split!r}.")
    entropy = (seed, SPLITS.index(split), index)
    rng = np.random.default_rng(entropy)
    objects: list[SceneObject] = []
    for _ in range(int(rng.integers(3, 8))):
        shape, color = str(rng.choice(SHAPES)), str(rng.choice(list(COLORS)))
        if objects and rng.random() < 0.65:  # a distractor: shares shape or colour with another
            other = objects[int(rng.integers(len(objects)))]
            shape, color = (other.shape, color) if rng.random() < 0.6 else (shape, other.color)
        size = str(rng.choice(list(SIZES)))
        box = _free_box(rng, size, objects)
        if box is not None:
            objects.append(SceneObject(shape, color, size, box))
    return Scene(tuple(objects), (*entropy, 1))


def _free_box(
    rng: np.random.Generator, size: str, objects: list[SceneObject]
) -> tuple[int, int, int, int] | None:
    """A box for a new object that touches no other, or None after 30 tries."""
    low, high = SIZES[size]
    for _ in range(30):
        half = int(rng.integers(low, high + 1))
        x, y = (int(value) for value in rng.integers(half + 1, SIDE - half - 1, size=2))
        box = (x - half, y - half, x + half, y + half)
        if is_free(box, objects):
            return box
    return None


def is_free(box: tuple[int, int, int, int], objects: Sequence[SceneObject]) -> bool:
    """Whether an object in this box would touch no other."""
    return all(
        box[0] > other.box[2] + GAP
        or box[2] < other.box[0] - GAP
        or box[1] > other.box[3] + GAP
        or box[3] < other.box[1] - GAP
        for other in objects
    )


def _draw(draw: ImageDraw.ImageDraw, item: SceneObject, fill: tuple[int, int, int]) -> None:
    """Fill the object's outline, which touches all four sides of its box."""
    x1, y1, x2, y2 = item.box
    if item.shape == "circle":
        draw.ellipse(item.box, fill=fill)
    elif item.shape == "square":
        draw.rectangle(item.box, fill=fill)
    elif item.shape == "triangle":
        draw.polygon([((x1 + x2) // 2, y1), (x2, y2), (x1, y2)], fill=fill)
    elif item.shape == "cross":
        third = (x2 - x1) // 3
        draw.rectangle((x1 + third, y1, x2 - third, y2), fill=fill)
        draw.rectangle((x1, y1 + third, x2, y2 - third), fill=fill)
    else:
        points = [
            ((1.0 if k % 2 == 0 else 0.42) * math.sin(k * math.pi / 5),
             -(1.0 if k % 2 == 0 else 0.42) * math.cos(k * math.pi / 5))
            for k in range(10)
        ]  # fmt: skip
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        draw.polygon(
            [
                (
                    x1 + (x - min(xs)) / (max(xs) - min(xs)) * (x2 - x1),
                    y1 + (y - min(ys)) / (max(ys) - min(ys)) * (y2 - y1),
                )
                for x, y in points
            ],
            fill=fill,
        )
