"""Forward passes without visual tokens: decoding, and new text on a pruned cache."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ivcp.engine.cache import PrunedLayer, cache_of
from ivcp.engine.layer_inputs import LayerInputs


class Continuation:
    """One forward pass in which only text enters; layers with a pruned cache get their own masks.

    Args:
        inputs: Masks and positions for such layers.
    """

    def __init__(self, inputs: LayerInputs) -> None:
        self.inputs = inputs

    def before_layer(
        self, index: int, layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Hidden states and keyword arguments for the layer."""
        cache = cache_of(kwargs)
        if cache is None or index >= len(cache.layers):
            return hidden, kwargs
        if not isinstance(cache.layers[index], PrunedLayer):
            return hidden, kwargs
        return hidden, {**kwargs, **self.inputs.with_cache(cache, index, hidden)}
