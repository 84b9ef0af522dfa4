"""The decoder layer before which methods prune: published layers, and a rule for other models."""

from __future__ import annotations

from typing import Literal, TypeAlias

Auto: TypeAlias = Literal["auto"]

PUBLISHED_LAYERS: dict[tuple[str, int], int] = {
    ("qwen2_vl", 28): 2,  # 7B
    ("qwen2_5_vl", 28): 16,  # 7B
    ("qwen2_5_vl", 36): 22,  # 3B
    ("llava", 32): 16,  # 1.5, 7B
    ("internvl", 32): 16,  # 2.5, 8B
    ("deepseek_vl_v2", 27): 17,  # small
}
"""Layer of IVC-Prune by (model type, number of decoder layers). Source: the IVC-Prune release."""

DEFAULT_DEPTH = 0.5
"""Fraction of the depth for models without a published layer, as LLaVA-1.5 and InternVL2.5 have."""


def ivc_prune_layer(model_type: str, layers: int) -> int:
    """Layer before which IVC-Prune prunes; its controls prune before the same layer.

    >>> ivc_prune_layer("qwen2_5_vl", 28), ivc_prune_layer("qwen2_5_vl", 8)
    (16, 4)
    """
    return PUBLISHED_LAYERS.get((model_type, layers), max(1, round(DEFAULT_DEPTH * layers)))


def scaled_layers(published: tuple[int, ...], depth: int, layers: int) -> tuple[int, ...]:
    """Layers at the same fractions of another depth: ascending, none below 1.

    Args:
        published: Ascending layers of a model with `depth` decoder layers.
        depth: The depth of that model.
        layers: The depth of the model at hand; it must exceed the number of published layers.

    >>> scaled_layers((8, 16, 24), 32, 28), scaled_layers((3, 7, 16), 32, 6)
    ((7, 14, 21), (1, 2, 3))
    """
    scaled = [0]
    for layer in published:
        scaled.append(max(round(layer * layers / depth), scaled[-1] + 1))
    return tuple(scaled[1:])
