"""What stays the same in all forward passes of a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from ivcp.core.family import ModelAdapter
from ivcp.core.pruner import Pruner
from ivcp.core.text_encoder import TextEncoder


@dataclass(frozen=True)
class ModelParts:
    """What stays the same in all forward passes of a session.

    Attributes:
        adapter: How to look inside the model.
        pruner: The method, its layers fitted.
        decoder: The language model.
        depth: Number of decoder layers.
        axes: Axes of its position ids.
        inverse_frequencies: (D / 2,) float32, on the CPU.
        text_encoder: Gives the text tower, if the family has one.
    """

    adapter: ModelAdapter
    pruner: Pruner
    decoder: nn.Module
    depth: int
    axes: int
    inverse_frequencies: Tensor
    text_encoder: Callable[[], TextEncoder] | None
