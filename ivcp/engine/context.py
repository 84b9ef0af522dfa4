"""What all forward passes of a session have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from ivcp.core.family import ModelAdapter
from ivcp.core.layer_kinds import LayerKind
from ivcp.core.pruner import Pruner
from ivcp.core.text_encoder import TextEncoder
from ivcp.measure.flops import DecoderSizes, prefill_flops


@dataclass(frozen=True)
class SessionContext:
    """What all forward passes of a session have in common.

    Attributes:
        adapter: How to look inside the model.
        pruner: The method, with its layers filled in.
        decoder: The language model.
        kinds: The kind of each decoder layer.
        axes: Axes of the language model's position ids.
        inverse_frequencies: (D / 2,) float32, on the CPU.
        text_encoder: Loader of the text tower, if the family has one.
    """

    adapter: ModelAdapter
    pruner: Pruner
    decoder: nn.Module
    kinds: tuple[LayerKind, ...]
    axes: int
    inverse_frequencies: Tensor
    text_encoder: Callable[[], TextEncoder] | None

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self.kinds)

    def prefill_flops(self, layer_tokens: Sequence[int], first_pass: Sequence[int] = ()) -> int:
        """Operations of the decoder's layers, by formula, if they process so many tokens."""
        return prefill_flops(layer_tokens, self._sizes, first_pass)

    @cached_property
    def _sizes(self) -> DecoderSizes:
        return DecoderSizes.of(self.decoder)
