"""Parts of DeepSeek-VL2 that the library lacks: projector, layout of visual tokens, routing.

Source: deepseek_vl2/models/modeling_deepseek_vl_v2.py and modeling_deepseek.py of
deepseek-ai/DeepSeek-VL2.

Shapes: T tiles, P patches of a tile, C decoder width, N tokens, E experts.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2TopkRouter


class BiasedRouter(DeepseekV2TopkRouter):  # type: ignore[misc]
    """Routing of the full DeepSeek-VL2 (`noaux_tc`), which the library's DeepSeek-V2 lacks.

    Scores are sigmoids. A bias is added to choose the experts, not to weight them. Only experts of
    the `topk_group` groups with the best sum of two biased scores can be chosen.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.norm_topk_prob = config.norm_topk_prob
        self.e_score_correction_bias = nn.Parameter(torch.zeros(self.num_experts))

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, E) and, for the chosen experts, weights and indices (N, top_k)."""
        hidden = hidden_states.view(-1, self.hidden_dim).float()
        logits = nn.functional.linear(hidden, self.weight.float())
        scores = logits.sigmoid()
        choice = scores + self.e_score_correction_bias
        groups = choice.view(len(choice), self.num_group or 1, -1)
        best = groups.topk(2).values.sum(-1).topk(self.topk_group or 1).indices
        excluded = torch.ones_like(groups[..., 0], dtype=torch.bool).scatter(1, best, False)
        chosen = groups.masked_fill(excluded[..., None], 0.0).flatten(1).topk(self.top_k).indices
        weights = scores.gather(1, chosen)
        if self.top_k > 1 and self.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return logits, weights * self.routed_scaling_factor, chosen


class DeepseekVL2Projector(nn.Module):
    """Folds squares of patches into one token and maps it to the decoder's width."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.ratio: int = config.downsample_ratio
        width = config.text_config.hidden_size
        hidden = width * config.projector_mlp_ratio
        widths = [config.vision_config.hidden_size * self.ratio**2]
        widths += [hidden] * (config.projector_depth - 1) + [width]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, patches: Tensor) -> Tensor:
        """(T, P, width of the tower) -> (T, ceil(side / ratio)^2, C); zeros fill an odd side."""
        side = math.isqrt(patches.shape[1])
        square = patches.transpose(1, 2).reshape(len(patches), -1, side, side)
        missing = -side % self.ratio
        square = nn.functional.pad(square, (0, missing, 0, missing))
        folded = nn.functional.pixel_unshuffle(square, self.ratio)
        projected: Tensor = self.layers(folded.flatten(2).transpose(1, 2))
        return projected


def lay_out(tiles: Tensor, crop: tuple[int, int], newline: Tensor, separator: Tensor) -> Tensor:
    """The visual tokens of one image: global view, separator, mosaic of local tiles.

    A newline follows each row of either view. A single local tile is laid out as well, although it
    shows the same as the global view.

    Args:
        tiles: (1 + width * height, side^2, C), the global view first, then the tiles row by row.
        crop: Tiles in (width, height).
        newline: (C,)
        separator: (C,)

    Returns:
        (side * (side + 1) + 1 + height * side * (width * side + 1), C)
    """
    width, height = crop
    side = math.isqrt(tiles.shape[1])
    size = tiles.shape[2]
    mosaic = tiles[1:].view(height, width, side, side, size).transpose(1, 2)
    views = (
        tiles[0].view(side, side, size),
        mosaic.reshape(height * side, width * side, size),
    )
    rows = [torch.cat([view, newline.expand(len(view), 1, -1)], 1).flatten(0, 1) for view in views]
    return torch.cat([rows[0], separator[None], rows[1]])
