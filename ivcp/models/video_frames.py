"""Which frames of a video a model is shown, in which size, and how Qwen's towers take them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ivcp.core.errors import UserError

PAIR = 2
"""Frames that Qwen's towers join to one moment."""


def check_frames(
    frames: int | None, fps: float, least: int, most: int, name: str = "model."
) -> None:
    """Refuse settings that choose no frame.

    Args:
        frames: Frames of each video; None to go by `fps`.
        fps: Frames a second.
        least: Fewest frames by `fps`.
        most: Most frames by `fps`.
        name: What stands before the names of the settings.

    Raises:
        UserError: A number is too small, or they are not in order.
    """
    if frames is not None and frames < 1:
        raise UserError(f"{name}frames must be at least 1, or null; got {frames}.")
    if not 0 < fps < math.inf:
        raise UserError(f"{name}fps must be above 0; got {fps}.")
    if not 1 <= least <= most:
        raise UserError(
            f"{name}min_frames must be at least 1 and at most {name}max_frames; got {least} and "
            f"{most}."
        )


def pairs_of_frames(
    total: int, rate: float, *, frames: int | None, fps: float, least: int, most: int
) -> list[int]:
    """Evenly spaced frames of a clip, both ends included; an even number where it has two.

    Source: `smart_nframes` of qwen-vl-utils 0.0.14; a clip with fewer frames than were asked for
    gives what it has.

    Args:
        total: Frames of the clip.
        rate: Frames a second of the clip.
        frames: As in `check_frames`.
        fps: Likewise.
        least: Likewise.
        most: Likewise.

    >>> pairs_of_frames(300, 30.0, frames=4, fps=2, least=4, most=768)
    [0, 100, 199, 299]
    >>> len(pairs_of_frames(300, 30.0, frames=None, fps=2, least=4, most=768))
    20
    """
    if frames is not None:
        count = max(PAIR, round(frames / PAIR) * PAIR)
    else:
        least = math.ceil(least / PAIR) * PAIR
        most = max(PAIR, min(most, total) // PAIR * PAIR)
        count = int(min(max(total / rate * fps, least), most) // PAIR * PAIR)
    count = min(count, total // PAIR * PAIR) or 1
    return evenly(total, count)


def evenly(total: int, count: int) -> list[int]:
    """`count` of `total` frames, evenly spaced, both ends included, rounded to the nearest.

    >>> evenly(10, 3)
    [0, 4, 9]
    """
    return torch.linspace(0, total - 1, count, dtype=torch.float64).round().long().tolist()


def fitted_size(
    width: int, height: int, *, cell: int, min_pixels: float, max_pixels: float
) -> tuple[int, int]:
    """Width and height in whole cells within limits, nearly in the same aspect.

    Source: `smart_resize` of qwen-vl-utils and of transformers' Qwen2-VL.

    Args:
        width: Width of a frame.
        height: Height of a frame.
        cell: Pixels along one visual token.
        min_pixels: Frames with fewer pixels are enlarged.
        max_pixels: Frames with more pixels are shrunk.

    Raises:
        ValueError: One side is more than 200 times the other.
    """
    if max(width, height) > 200 * min(width, height):
        raise ValueError(f"an aspect ratio of more than 200 ({width} x {height})")
    columns, rows = (max(cell, round(edge / cell) * cell) for edge in (width, height))
    if columns * rows > max_pixels:
        scale = math.sqrt(width * height / max_pixels)
        columns, rows = (
            max(cell, math.floor(edge / scale / cell) * cell) for edge in (width, height)
        )
    elif columns * rows < min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
        columns, rows = (math.ceil(edge * scale / cell) * cell for edge in (width, height))
    return columns, rows


def normalized(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(N, 3, H, W) frames as the tower takes them, float32.

    Args:
        frames: (N, 3, H, W) uint8.
        mean: Mean of each channel in 0 .. 1.
        std: Standard deviation of each channel, likewise.
    """
    center, scale = (torch.tensor(values).view(3, 1, 1) * 255 for values in (mean, std))
    return (frames.float() - center) / scale


def patches(frames: Tensor, patch: int, merge: int) -> tuple[Tensor, tuple[int, int, int]]:
    """Patches of a video as Qwen's towers take them, and the moments, rows and columns of them.

    Source: `Qwen2VLVideoProcessor` of transformers; a last frame without a partner is repeated.

    Args:
        frames: (N, 3, H, W) normalised frames.
        patch: Pixels along a patch.
        merge: Patches along a visual token.

    Returns:
        (moments * rows * columns, 3 * 2 * patch * patch), in the tower's order.
    """
    if len(frames) % PAIR:
        frames = torch.cat([frames, frames[-1:]])
    count, channels, height, width = frames.shape
    times, rows, columns = count // PAIR, height // patch, width // patch
    blocks = frames.view(
        times, PAIR, channels, rows // merge, merge, patch, columns // merge, merge, patch
    ).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return blocks.reshape(times * rows * columns, -1), (times, rows, columns)
