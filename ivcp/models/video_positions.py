"""Numbers of tokens in time, height and width where a video counts seconds, as in Qwen2.5-VL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def video_positions(
    types: Tensor,
    mask: Tensor,
    images: Iterable[Sequence[int]],
    videos: Iterable[Sequence[int]],
    steps: Iterable[float],
) -> Tensor:
    """(3, B, S) position ids; padding has 0.

    Each part of a prompt begins behind the largest number of the part before, as Qwen's models were
    trained. transformers 5 begins behind the larger edge of a video's grid instead, so that text
    behind a long video shares the numbers of its later moments.

    Source: `get_rope_index` of transformers 4.57.

    Args:
        types: (B, S) 0 for text, 1 for tokens of images, 2 for tokens of videos.
        mask: (B, S) 0 at padding.
        images: (moments, rows, columns) of visual tokens of each image.
        videos: Likewise of each video.
        steps: What the position grows by from one moment of each video to the next.
    """
    positions = torch.zeros(3, *types.shape, dtype=torch.long)
    grids, times = {1: iter(images), 2: iter(videos)}, iter(steps)
    for row, real in enumerate(mask.bool()):
        kinds, counts = torch.unique_consecutive(types[row, real], return_counts=True)
        parts, start = [], 0
        for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
            if kind == 0:
                part = torch.arange(count).expand(3, -1)
            else:
                moments, rows, columns = (torch.arange(edge) for edge in next(grids[kind]))
                moments = (moments * next(times)).long() if kind == 2 else moments
                part = torch.stack(torch.meshgrid(moments, rows, columns, indexing="ij")).flatten(1)
            parts.append(part + start)
            start = int(parts[-1].max()) + 1
        positions[:, row, real] = torch.cat(parts, 1)
    return positions
