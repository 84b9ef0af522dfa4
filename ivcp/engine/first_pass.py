"""Decoder layers that run once on all tokens before layer 0, so that a stage can read the last."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Context
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from ivcp.engine.cache import stored_slots
from ivcp.engine.deepstack import DeepStack


class UnchangedCache:
    """Gives a layer the states of earlier turns and of the new tokens; the cache is not changed.

    Args:
        cache: The cache, or None.

    Attributes:
        states: Keys and values of the last layer that ran, those of earlier turns included.
    """

    def __init__(self, cache: Cache | None) -> None:
        self.cache = cache
        self.states: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """What the layer attends to, as `Cache.update` returns it."""
        self.states = key_states, value_states
        if stored_slots(self.cache, layer_idx):
            layer = self.cache.layers[layer_idx]  # type: ignore[union-attr]
            keys = torch.cat([layer.keys, key_states], -2)
            self.states = keys, torch.cat([layer.values, value_states], -2)
        return self.states

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The state of earlier turns of a linear layer, which the layer may write to."""
        if self.cache is None:
            return None
        state: Tensor | None = self.cache.get_conv_state(layer_idx, state_idx)
        return None if state is None else state.clone()

    def update_conv_state(
        self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any
    ) -> Tensor:
        """What a linear layer's convolution reads, as `Cache.update_conv_state` returns it."""
        state = self.get_conv_state(layer_idx, state_idx)
        return conv_states if state is None else torch.cat([state, conv_states], -1)

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The other state of a linear layer, which the layer does not write to."""
        if self.cache is None:
            return None
        state: Tensor | None = self.cache.get_recurrent_state(layer_idx, state_idx)
        return state

    def update_recurrent_state(self, recurrent_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return recurrent_states

    def is_recording_past(self, layer_idx: int) -> bool:
        return False


def run_first_pass(
    layers: Sequence[nn.Module],
    embeds: Tensor,
    arguments: Sequence[dict[str, Any]],
    deepstack: DeepStack | None,
) -> Tensor:
    """Run the first decoder layers on all tokens, without gradients.

    Args:
        layers: The layers.
        embeds: (B, S, C) input of layer 0.
        arguments: Keyword arguments of each layer.
        deepstack: Features that are added behind early layers, if any.

    Returns:
        (B, S, C) input of the last of these layers.
    """
    entering = hidden = embeds
    with torch.no_grad():
        for index, (layer, kwargs) in enumerate(zip(layers, arguments, strict=True)):
            if index and deepstack is not None:
                hidden = deepstack.added(index - 1, hidden, None)
            entering = hidden
            # `forward` passes by the layer's hooks, which follow the prefill; in an empty context,
            # the library does not collect these states as outputs of the model
            output = Context().run(layer.forward, hidden, **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
    return entering
