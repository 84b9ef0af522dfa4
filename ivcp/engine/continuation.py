"""Forward passes without visual tokens: decoding, and new text on a pruned cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import Cache

from ivcp.engine.cache import PrunedLayer, cache_of
from ivcp.engine.layer_inputs import LayerInputs
from ivcp.engine.linear_state import check_padding, expect, is_linear
from ivcp.engine.prompt import has_images
from ivcp.engine.static_cache import PrunedStaticLayer


def is_plain_decoding(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call decodes one token on a cache for which the library's masks are right.

    Nothing has to be done in such a call. Compiled code is traced through this function, so it
    reads nothing that changes from token to token.

    Args:
        args: Positional arguments of the model, of its entry or of its language model.
        kwargs: Keyword arguments of the same call.
    """
    layers = getattr(cache_of(kwargs), "layers", None)
    if len(args) > 1 or not layers:
        return False
    layer = next((layer for layer in layers if not is_linear(layer)), None)
    # in a cache that needs a session, all layers do
    if layer is None or not layer.is_initialized or getattr(layer, "needs_session", False):
        return False
    embeds, mask = kwargs.get("inputs_embeds"), kwargs.get("attention_mask")
    ids = args[0] if args else kwargs.get("input_ids")
    entering = ids if embeds is None else embeds
    if entering is None or entering.shape[1] != 1:
        return False
    padding = mask is None or (not isinstance(mask, dict) and mask.ndim == 2)
    if not padding and not isinstance(layer, PrunedStaticLayer):  # whose masks `generate` makes
        return False
    # `_before_model` has taken labels out, but not their name
    return "labels" not in kwargs and not has_images(kwargs)


def is_plain_entry(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """The same for the entry, to which some models pass labels on: there, the name says nothing."""
    return is_plain_decoding(args, {key: kwargs[key] for key in kwargs if key != "labels"})


def is_plain_step(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """The same for the language model, where masks for each kind of layer are the library's own."""
    by_kind = isinstance(kwargs.get("attention_mask"), dict)
    return is_plain_entry(args, {**kwargs, "attention_mask": None} if by_kind else kwargs)


class Continuation:
    """One forward pass in which only text enters; layers with a pruned cache get their own masks.

    Args:
        inputs: Masks and positions for such layers.
    """

    def __init__(self, inputs: LayerInputs) -> None:
        self.inputs = inputs

    def language_model_inputs(self, cache: Cache | None, hidden: Tensor) -> dict[str, Any] | None:
        """Keyword arguments of the language model that suit all its layers.

        Args:
            cache: The cache, or None.
            hidden: (B, N, C) what enters layer 0.

        Returns:
            The arguments to change, or None if layers need their own.
        """
        layers = [] if cache is None else cache.layers
        pruned = [layer for layer in layers if isinstance(layer, PrunedLayer)]
        if not pruned:
            return {}
        linear = [layer for layer in layers if is_linear(layer)]
        if linear:
            check_padding(True, self.inputs.real is not None)
        if hidden.shape[1] > 1 or len(pruned) + len(linear) < len(layers):
            return None
        kinds = {(layer.mask, layer.renumbered) for layer in pruned}
        free = kinds == {(None, False)}
        if not free and (len(kinds) > 1 or len({layer.stored for layer in pruned}) > 1):
            return None
        for layer in layers:
            expect(layer)
        if free:  # one token that attends to all slots of each layer, however many these are
            eager = self.inputs.backend == "eager"
            return {"attention_mask": hidden.new_zeros(1, 1, 1, 1) if eager else None}
        return self.inputs.of_language_model(pruned[0], hidden)

    def before_layer(
        self, index: int, layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        """Hidden states and keyword arguments for the layer."""
        cache = cache_of(kwargs)
        if cache is None or index >= len(cache.layers):
            return hidden, kwargs
        if is_linear(cache.layers[index]):
            expect(cache.layers[index])
        if not isinstance(cache.layers[index], PrunedLayer):
            return hidden, kwargs
        return hidden, {**kwargs, **self.inputs.with_cache(cache, index, hidden)}
