"""Kinds of decoder layers: what a layer attends to, and what it keeps of earlier tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from ivcp.core.errors import UserError

LayerKind: TypeAlias = Literal["full", "sliding", "linear"]
"""A full layer attends to all earlier tokens, a sliding one to a window of them. A linear one has a
state of constant size instead of keys and values."""
Kinds: TypeAlias = Sequence[LayerKind]
"""The kind of each decoder layer."""

NAMES: dict[str, LayerKind] = {
    "full_attention": "full", "sliding_attention": "sliding", "chunked_attention": "sliding",
    "linear_attention": "linear",
}  # fmt: skip
"""The library's `layer_types`."""


def layer_kinds(config: Any) -> tuple[LayerKind, ...]:
    """The kind of each decoder layer, from a configuration of a model or of its language model.

    Raises:
        UserError: A layer is of another kind.
    """
    text = getattr(config, "text_config", config)
    names = getattr(text, "layer_types", None)
    if names is None:  # older configurations have one kind for all layers
        window = getattr(text, "sliding_window", None)
        windowed = window is not None and getattr(text, "use_sliding_window", True)
        return ("sliding" if windowed else "full",) * int(text.num_hidden_layers)
    if unknown := sorted(set(names) - set(NAMES)):
        raise UserError(
            f"Pruning supports decoder layers of the kinds {', '.join(NAMES)}; the model has "
            f"{', '.join(unknown)}: use another model."
        )
    return tuple(NAMES[name] for name in names)


def check_kinds(config: Any, kinds: Kinds, supported: frozenset[LayerKind]) -> None:
    """Refuse a model with decoder layers that its family cannot prune.

    Args:
        config: As in `layer_kinds`.
        kinds: The kind of each decoder layer.
        supported: Kinds that the family supports.

    Raises:
        UserError: There are such layers.
    """
    unsupported = set(kinds) - supported
    if "sliding" in unsupported:
        window = getattr(getattr(config, "text_config", config), "sliding_window", None)
        raise UserError(
            "Pruning does not support models with sliding-window layers; where no prompt is longer "
            f"than the window of {window} tokens, load the model with sliding_window=None."
        )
    if unsupported:
        raise UserError(
            "Pruning does not support this model's linear-attention layers, which have no keys and "
            "values: use another model."
        )


def readable_layers(kinds: Kinds, signals_from: Literal["previous", "next"]) -> list[int]:
    """Layers before which a stage can read values, keys and attention.

    Args:
        kinds: The kind of each decoder layer.
        signals_from: As in `Stage`.

    >>> readable_layers(["linear", "full", "linear", "full"], "previous")
    [2]
    >>> readable_layers(["linear", "full", "linear", "full"], "next")
    [1, 3]
    """
    behind = int(signals_from == "previous")
    layers = [index + behind for index, kind in enumerate(kinds) if kind != "linear"]
    return [layer for layer in layers if layer < len(kinds)]


def nearest_layers(wanted: Sequence[int], allowed: Sequence[int]) -> tuple[int, ...]:
    """The allowed layer nearest to each wanted one, of two the earlier one; all ascend.

    Args:
        wanted: Ascending layers.
        allowed: Ascending layers; if they are too few, the wanted ones are returned.

    >>> nearest_layers((3, 7, 16), (4, 8, 12, 16, 20)), nearest_layers((1, 2, 3), (2, 3, 5))
    ((4, 8, 16), (2, 3, 5))
    """
    if len(allowed) < len(wanted):
        return tuple(wanted)
    found: list[int] = []
    for number, layer in enumerate(wanted):
        start = allowed.index(found[-1]) + 1 if found else 0
        stop = len(allowed) - (len(wanted) - number - 1)  # later ones need a layer, too
        found.append(min(allowed[start:stop], key=lambda each: (abs(each - layer), each)))
    return tuple(found)
