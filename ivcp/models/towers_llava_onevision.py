"""The vision tower of LLaVA-OneVision, some of whose tokens are blends of four patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ivcp.models.llavanext import shrunk
from ivcp.models.towers import LlavaNextTower


class LlavaOnevisionTower(LlavaNextTower):
    """Each of several images is one tile, and so is each frame of a video.

    The library resizes the projected features of frames, and of images with many tiles, bilinearly:
    a token is made of four patches. Here they count alike (the library weighs them by distance), so
    `project` of such a token's features is near its embedding. A token of one patch names it four
    times.
    """

    def _tiles(self, call: Mapping[str, Any]) -> list[int]:
        if (videos := call.get("pixel_values_videos")) is not None:
            return [videos.shape[1]] * len(videos)
        tiles, counts = super()._tiles(call), call.get("batch_num_images")
        if counts is None:
            return tiles
        of_sample = [count for count in torch.as_tensor(counts).tolist() for _ in range(count)]
        return [
            of_image if count == 1 else 1 for of_image, count in zip(tiles, of_sample, strict=True)
        ]

    def _edges(self, call: Mapping[str, Any]) -> tuple[int, int]:
        videos = call.get("pixel_values_videos")
        return super()._edges(call if videos is None else {**call, "pixel_values": videos})

    def patches(self, call: Mapping[str, Any]) -> list[Tensor]:
        tokens = self._tokens(call)
        if call.get("pixel_values_videos") is not None:
            rows, columns = (math.ceil(edge / 2) for edge in self._edges(call))
            return [blended(frames, rows, columns).flatten(0, 2) for frames in tokens]
        images = []
        sizes = torch.as_tensor(call["image_sizes"]).tolist()
        for size, tiles in zip(sizes, tokens, strict=True):
            views = [tiles[:1].expand(-1, -1, -1, 4).flatten(0, 2)]
            if len(tiles) > 1:
                views.append(self._joined(tiles[1:], size).flatten(0, 1))
            images.append(torch.cat(views))
        return images

    def _joined(self, tiles: Tensor, size: Sequence[int]) -> Tensor:
        grid = super()._joined(tiles, size)
        rows, columns = shrunk(self.config, *grid.shape[:2])
        return blended(grid[None], rows, columns)[0]

    def project(self, features: Tensor) -> Tensor:
        patches = features.reshape(len(features), 4, features.shape[1] // 4)
        embeddings: Tensor = self.projector(patches).mean(1)
        return embeddings


def blended(grids: Tensor, rows: int, columns: int) -> Tensor:
    """(N, rows, columns, 4) patches that a bilinear resize of (N, H, W, 1) patches blends."""
    down, across = _neighbours(grids.shape[1], rows), _neighbours(grids.shape[2], columns)
    pairs = grids[..., 0][:, down][..., across]  # (N, rows, 2, columns, 2)
    return pairs.transpose(2, 3).flatten(3)


def _neighbours(length: int, resized: int) -> Tensor:
    """(resized, 2) indices of the two items that each item of the resized axis lies between.

    As in `interpolate`, without antialiasing and with `align_corners=False`. An item that lies on
    another one names it twice.
    """
    centers = ((torch.arange(resized) + 0.5) * (length / resized) - 0.5).clamp_min(0)
    below = centers.floor().long().clamp_max(length - 1)
    above = torch.where(centers > below, below + 1, below).clamp_max(length - 1)
    return torch.stack([below, above], 1)
