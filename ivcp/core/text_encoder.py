"""The contract of a text encoder that was trained with a model's vision tower."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class TextEncoder(Protocol):
    """Measures how relevant each patch of a vision tower is to a text."""

    def relevance(self, features: Tensor, text: str) -> Tensor:
        """(V,) float32 cosine of each token with the text, mean over a long text's segments.

        Args:
            features: (V, Ct) states of the vision tower from which embeddings are projected.
            text: The user's question.
        """
