"""Numbers of tokens in each layer and its cache, counted on the host for the session's results."""

from __future__ import annotations

from collections.abc import Sequence

from ivcp.engine.sample_tokens import SampleTokens


class TokenCounts:
    """Numbers of tokens of one prefill.

    Attributes:
        layer_tokens: [layer][sample] tokens that each layer processed.
        earlier_slots: [layer] slots of earlier turns in its cache.
        cached: [layer][sample] tokens in its cache, slots of earlier turns included.
        first_pass: [layer][sample] tokens that each of the first layers processed before, to
            choose tokens.
    """

    def __init__(self) -> None:
        self.layer_tokens: list[list[int]] = []
        self.earlier_slots: list[int] = []
        self.cached: list[list[int]] = []
        self.first_pass: list[list[int]] = []

    def add_first_pass(self, samples: Sequence[SampleTokens], layers: int) -> None:
        """Count the tokens of a first pass through so many layers."""
        self.first_pass = [[len(sample) for sample in samples]] * layers

    def add_layer(self, samples: Sequence[SampleTokens], earlier_slots: int) -> None:
        """Count the tokens that enter the next layer."""
        tokens = [len(sample) for sample in samples]
        self.layer_tokens.append(tokens)
        self.earlier_slots.append(earlier_slots)
        self.cached.append([earlier_slots + count for count in tokens])

    def prune_cache(self, samples: Sequence[SampleTokens]) -> None:
        """Count the caches of all layers so far again, after they were pruned."""
        for index, earlier in enumerate(self.earlier_slots):
            self.cached[index] = [earlier + len(sample) for sample in samples]
