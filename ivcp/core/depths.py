"""At which decoder layer methods prune, where a publication says so, and where none does."""

from __future__ import annotations

from typing import Literal, TypeAlias

Auto: TypeAlias = Literal["auto"]

IVC_PRUNE: dict[tuple[str, int], int] = {
    ("qwen2_vl", 28): 2,  # 7B
    ("qwen2_5_vl", 28): 16,  # 7B
    ("qwen2_5_vl", 36): 22,  # 3B
    ("llava", 32): 16,  # 1.5, 7B
    ("internvl", 32): 16,  # 2.5, 8B
    ("deepseek_vl_v2", 27): 17,  # small
}
"""Layer of IVC-Prune by (model type, number of decoder layers). Source: the IVC-Prune release."""

HALF = 0.5
"""Share of the depth where none was published: that of LLaVA-1.5 and InternVL2.5."""


def ivc_prune_layer(model_type: str, layers: int) -> int:
    """Layer before which IVC-Prune, and the controls that follow it, prune.

    >>> ivc_prune_layer("qwen2_5_vl", 28), ivc_prune_layer("qwen2_5_vl", 8)
    (16, 4)
    """
    return IVC_PRUNE.get((model_type, layers), max(1, round(HALF * layers)))


def scaled(published: tuple[int, ...], depth: int, layers: int) -> tuple[int, ...]:
    """Layers at the same shares of another depth, ascending, each at least 1 and inside the model.

    Args:
        published: Ascending layers of a model with `depth` decoder layers.
        depth: Its depth.
        layers: The depth asked for; at least one more than there are layers to place.

    >>> scaled((8, 16, 24), 32, 28), scaled((3, 7, 16), 32, 6)
    ((7, 14, 21), (1, 2, 3))
    """
    found: list[int] = []
    for layer in published:
        found.append(max(round(layer * layers / depth), found[-1] + 1 if found else 1))
    return tuple(found)
