"""A view with recorded signals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ivcp.core.layout import ImageLayout, PromptLayout


@dataclass
class RecordedView:
    """The signals of one image that IVC-Prune reads.

    Attributes:
        image: The image.
        layout: The prompt that it stands in.
        states: (G, S, D) value states of the prompt.
        theta: Base of the rotary frequencies, head dim 16.
    """

    image: ImageLayout
    layout: PromptLayout
    states: Tensor
    theta: float

    def __post_init__(self) -> None:
        self.index = torch.arange(self.image.length)

    def values(self) -> tuple[Tensor, Tensor]:
        queries = self.layout.text_queries(self.image)
        return self.states[:, queries], self.states[:, self.image.tokens]

    def other_values(self) -> Tensor:
        return self.states[:, self.layout.text]

    def positions(self) -> Tensor:
        return self.image.tokens[None]

    def inverse_frequencies(self) -> Tensor:
        return self.theta ** -(torch.arange(0, 16, 2) / 16)
