"""The cache of a linear-attention layer: a state of constant size instead of keys and values."""

from __future__ import annotations

from typing import Any

from transformers import cache_utils
from transformers.cache_utils import Cache

from ivcp.core.errors import UserError
from ivcp.core.layer_kinds import Kinds

# versions without this class have no hybrid models either
LinearAttentionLayer: Any = getattr(cache_utils, "LinearAttentionLayer", type("NoLayer", (), {}))


class PrunedState(LinearAttentionLayer):  # type: ignore[misc]
    """The state of a linear layer in a cache that may only grow inside a session.

    Tokens that entered the layer before they were pruned stay in its state.

    Attributes:
        needs_session: As in `PrunedLayer`.
        expected: Likewise.
    """

    needs_session = False
    expected = False

    @property
    def has_previous_state(self) -> Any:
        # what the library reads before it uses the state or adds to it
        if self.needs_session and not self.expected:
            raise UserError(
                "This KV cache was pruned so that its layers or rows differ; go on with it inside "
                "pruned(...), where masks and positions fit it."
            )
        return self._has_previous_state

    @has_previous_state.setter
    def has_previous_state(self, value: Any) -> None:
        self._has_previous_state = value

    def update_recurrent_state(self, *args: Any, **kwargs: Any) -> Any:
        state = super().update_recurrent_state(*args, **kwargs)
        self.expected = False  # the last thing that a forward pass does to the layer
        return state

    def reset(self) -> None:
        self.needs_session = False
        super().reset()


def is_linear(layer: Any) -> bool:
    """Whether a layer of a cache holds the state of linear attention, and no keys and values."""
    return type(layer) in (LinearAttentionLayer, PrunedState)


def pruned_state(cache: Cache, index: int) -> PrunedState:
    """Layer `index` of a cache as a `PrunedState`, which replaces it and takes over its state."""
    layer = cache.layers[index]
    if not isinstance(layer, PrunedState):
        new = PrunedState()
        for name, value in vars(layer).items():
            setattr(new, name, value)
        cache.layers[index] = layer = new
    return layer


def with_slots(cache: Cache) -> list[Any]:
    """The layers of a cache that keep keys and values."""
    return [layer for layer in cache.layers if not is_linear(layer)]


def expect(layer: Any) -> None:
    """Allow the running forward pass to add to a layer of a cache."""
    if hasattr(layer, "expected"):
        layer.expected = True


def state_bytes(layer: Any) -> int:
    """Bytes of the state of a linear layer."""
    states = [*layer.conv_states.values(), *layer.recurrent_states.values()]
    return sum(state.nbytes for state in states if state is not None)


def check_states(cache: Any, kinds: Kinds) -> None:
    """Refuse a cache that has no states for linear layers.

    Args:
        cache: The cache, or None.
        kinds: The kind of each decoder layer.

    Raises:
        UserError: It has none.
    """
    if cache is not None and "linear" in kinds and not any(map(is_linear, cache.layers)):
        raise UserError(
            "This model has linear-attention layers, for which the cache has no states: pass "
            "DynamicCache(config=model.config), or no cache."
        )


def check_padding(continues: bool, padded: bool) -> None:
    """Refuse padding between the tokens of two turns, which would enter the states of rows.

    Args:
        continues: Whether the cache holds tokens of an earlier turn.
        padded: Whether rows are padded.

    Raises:
        UserError: There is such padding.
    """
    if continues and padded:
        raise UserError(
            "This model's linear-attention layers would read the padding between two turns of a "
            "batch whose rows have different lengths: go on with each row alone."
        )
