"""Vision towers of Qwen-VL and GLM-V: patches of all images in one sequence, 2 x 2 a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ivcp.core.tower import VisionTower


class QwenTower(VisionTower):
    """Qwen2-VL, Qwen3-VL and Qwen3.5: an image, or a moment of a video, attends to itself only.

    Args:
        entry: `Qwen2VLModel`, `Qwen3VLModel` or `Qwen3_5Model`.
    """

    def __init__(self, entry: nn.Module) -> None:
        vision: Any = entry.visual
        self.vision = vision
        self.merge: int = vision.spatial_merge_size
        self.blocks = vision.blocks
        self.feature_site = vision.merger, "input"

    def segments(self, block: int, call: Mapping[str, Any]) -> list[int]:
        return [
            rows * columns for times, rows, columns in grids(call).tolist() for _ in range(times)
        ]

    def patches(self, call: Mapping[str, Any]) -> list[Tensor]:
        counts = grids(call).prod(1).tolist()
        rows = torch.arange(sum(counts)).view(-1, self.merge**2)
        return list(torch.split(rows, [count // self.merge**2 for count in counts]))

    def cls_rows(self, call: Mapping[str, Any]) -> list[Tensor]:
        return [torch.empty(0, dtype=torch.long) for _ in grids(call)]

    def queries(
        self, block: nn.Module, hidden: Tensor, rows: slice | Tensor, context: Mapping[str, Any]
    ) -> Tensor:
        return self._rotated(block, hidden, rows, context, 0)

    def keys(
        self, block: nn.Module, hidden: Tensor, rows: slice | Tensor, context: Mapping[str, Any]
    ) -> Tensor:
        return self._rotated(block, hidden, rows, context, 1)

    def scale(self, block: nn.Module) -> float:
        attention: Any = block.attn
        return float(attention.scaling)

    def project(self, features: Tensor) -> Tensor:
        size = self.merge**2
        rows = features.reshape(len(features) * size, features.shape[1] // size)
        embeddings: Tensor = self.vision.merger(rows)
        return embeddings

    def _rotated(
        self,
        block: Any,
        hidden: Tensor,
        rows: slice | Tensor,
        context: Mapping[str, Any],
        index: int,
    ) -> Tensor:
        """Rotated states; index 0 of the joint projection is the queries, 1 the keys."""
        cos, sin = (angle[rows, None].float() for angle in context["position_embeddings"])
        joint = block.attn.qkv(block.norm1(hidden[rows]))
        states = joint.unflatten(-1, (3, block.attn.num_heads, -1))[:, index]  # (R', H, D)
        exact = states.float()  # the library rotates in float32 whatever the model's dtype
        low, high = exact.chunk(2, -1)
        turned = exact * cos + torch.cat([-high, low], -1) * sin
        return turned.to(states.dtype).transpose(0, 1)


class Qwen25Tower(QwenTower):
    """Qwen2.5-VL: the squares of 2 x 2 patches are sorted by window; most blocks attend in windows.

    Args:
        entry: `Qwen2_5_VLModel`.
    """

    def segments(self, block: int, call: Mapping[str, Any]) -> list[int]:
        if block in self.vision.fullatt_block_indexes:
            return super().segments(block, call)
        bounds = self._windows(call)[1]
        return bounds.diff().tolist()

    def patches(self, call: Mapping[str, Any]) -> list[Tensor]:
        order = self._windows(call)[0]  # (squares,) the square at each position
        counts = (grids(call).prod(1) // self.merge**2).tolist()
        rows = order.argsort()[:, None] * self.merge**2 + torch.arange(self.merge**2)
        return list(torch.split(rows, counts))

    def _windows(self, call: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Squares in the order of their windows, and the bounds of windows, in rows."""
        from transformers.vision_utils import get_vision_window_index

        vision = self.vision
        order, bounds = get_vision_window_index(
            grids(call), self.merge, vision.window_size, vision.patch_size
        )
        return order, bounds


class GlmTower(QwenTower):
    """GLM-4.1V: a norm and a convolution over 2 x 2 patches come before the merger.

    Args:
        entry: `Glm4vModel`.
    """

    def __init__(self, entry: nn.Module) -> None:
        super().__init__(entry)
        self.feature_site = self.vision.post_layernorm, "output"

    def project(self, features: Tensor) -> Tensor:
        patches = features.reshape(len(features), self.merge, self.merge, -1).permute(0, 3, 1, 2)
        embeddings: Tensor = self.vision.merger(self.vision.downsample(patches).flatten(1))
        return embeddings


def grids(call: Mapping[str, Any]) -> Tensor:
    """(N, 3) times, rows and columns of patches of each image or video of a call, on the CPU."""
    sizes = call.get("image_grid_thw")
    return torch.as_tensor(call["video_grid_thw"] if sizes is None else sizes)
