"""The vision tower of Idefics3 and SmolVLM: SigLIP on square views of an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ivcp.models.towers import TiledTower


class Idefics3Tower(TiledTower):
    """SigLIP's states behind its last norm; a square of patches makes a token.

    Args:
        entry: `Idefics3Model` or `SmolVLMModel`.
    """

    per_tile: ClassVar[bool] = True
    frames_as_images: ClassVar[bool] = True

    def __init__(self, entry: nn.Module) -> None:
        vision: Any = entry.vision_model
        config: Any = entry.config
        self.image_size, size = vision.config.image_size, vision.config.patch_size
        # the library's pixel shuffle puts a token's patches side by side, row by row
        connector: Any = entry.connector
        super().__init__(vision, connector.modality_projection, (size, size), config.scale_factor)
        self.blocks = vision.encoder.layers
        self.feature_site = vision.post_layernorm, "output"

    def _tiles(self, call: Mapping[str, Any]) -> list[int]:
        return [1] * int(shown_views(call["pixel_values"]).sum())

    def _edges(self, call: Mapping[str, Any]) -> tuple[int, int]:
        edge = self.image_size // self.patch[0]
        return edge, edge


def shown_views(pixels: Tensor) -> Tensor:
    """(B, N) whether a view is shown: the library drops those of zeros, which fill up the batch.

    Args:
        pixels: (B, N, 3, H, W) pixel values, or the result itself.
    """
    return pixels if pixels.dtype == torch.bool else (pixels != 0).flatten(2).any(2)
