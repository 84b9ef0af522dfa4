"""A view of one image whose signals are at hand, without a running forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout


@dataclass
class PlainView:
    """Gives a pruner the signals that its maker has; `select(view, 0)` runs without an engine.

    For servers, tests and notebooks. Whatever `View` documents goes into `signals` by the name of
    its method: a tensor (or a pair), or a function that is called with the method's arguments.

    Attributes:
        image: The image's grids and their position in the prompt.
        signals: What the methods of these names give.
        sample_id: Id of the sample, of which seeds are made.
        layers: Number of decoder layers, `L`.
        text_tokens: Tokens of the prompt that belong to no image.
        text_queries: Number of text queries, `T`.
        device: Device of `index`.
        notes: What a method stores for its later stages.
        index: (V,) the tokens of the image that are left, at first all of them.
    """

    image: ImageLayout
    signals: Mapping[str, Any] = field(default_factory=dict)
    sample_id: str = ""
    layers: int = 0
    text_tokens: int = 0
    text_queries: int = 0
    device: torch.device | str = "cpu"
    notes: dict[str, Tensor] = field(default_factory=dict)
    index: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.index = torch.arange(self.image.length, device=self.device)

    def prefill_flops(self, layer_tokens: Sequence[int], first_pass: Sequence[int] = ()) -> int:
        """Not known without a model."""
        raise UserError("This view has no 'prefill_flops': it stands for no model.")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self.signals:
            has = ", ".join(sorted(self.signals)) or "none"
            raise UserError(f"This view has no signal {name!r}; it has {has}.")
        signal = self.signals[name]
        return signal if callable(signal) else lambda *_, **__: signal
