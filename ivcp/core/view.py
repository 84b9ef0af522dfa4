"""The signals that a pruning method can read, from the vision tower to the next decoder layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from torch import Tensor

from ivcp.core.layout import ImageLayout

Signal = Literal[
    "positions", "embeddings", "text_embeddings", "hidden", "values", "keys", "attention",
    "tower_attention", "tower_keys", "tower_features", "question", "text_encoder",
]  # fmt: skip
"""What a pruner can read. `values`, `keys` and `attention` belong to a decoder layer, the `tower_`
signals to the vision tower; `question` is the user's text, and `text_encoder` the text tower that
was trained with the vision tower."""

LAYER_SIGNALS: frozenset[Signal] = frozenset({"values", "keys", "attention"})
TOWER_BLOCK_SIGNALS: frozenset[Signal] = frozenset({"tower_attention", "tower_keys"})
TOWER_SIGNALS: frozenset[Signal] = TOWER_BLOCK_SIGNALS | {"tower_features"}

VISUAL_AXIS = {
    "positions": 1, "hidden": 0, "last_attention": 0, "attention": 1, "mean_attention": 0,
    "tower_attention": 0, "tower_keys": 1, "tower_features": 0, "text_relevance": 0,
}  # fmt: skip
"""Axis of the current visual tokens in what a method of `View` gives."""
TEXT_AND_VISUAL = ("values", "keys")
"""Methods that give (G, T, D) states of the text queries and (G, V, D) of the visual tokens."""


class View(Protocol):
    """One image of one sample, right before the stage's layer.

    The `V` current visual tokens are those that earlier stages kept or merged. At the first stage
    they are all of the image's tokens, and `image.spans` gives the tokens of each grid. Tensors are
    copies on the model's device; `values`, `keys`, `embeddings`, `hidden` and tower states have the
    model's dtype. Reading a signal that the stage's `needs` do not name is refused.

    Attributes:
        image: The image's grids and their position in the prompt.
        index: (V,) index into the image of each current visual token; ascending, except that merged
            tokens come last, with the index of the token whose position they took.
        sample_id: Stable id of the sample: the caller's, else a digest of its prompt.
        layers: Number of decoder layers, `L`.
        text_tokens: Tokens of the prompt that belong to no image.
        text_queries: Number of text queries, `T`.
        notes: Tensors that earlier stages of this forward pass stored for later ones.
    """

    @property
    def image(self) -> ImageLayout: ...

    @property
    def index(self) -> Tensor: ...

    @property
    def notes(self) -> dict[str, Tensor]: ...

    @property
    def sample_id(self) -> str: ...

    @property
    def layers(self) -> int: ...

    @property
    def text_tokens(self) -> int: ...

    @property
    def text_queries(self) -> int: ...

    def prefill_flops(self, layer_tokens: Sequence[int], first_pass: Sequence[int] = ()) -> int:
        """Operations of the decoder's layers, by formula, if they process so many tokens.

        Args:
            layer_tokens: (L,) tokens of the sample, text included.
            first_pass: Those that the first layers process in a pass before, to choose tokens.
        """

    def positions(self) -> Tensor:
        """(A, V) position ids of the visual tokens, a row for each axis; padding is not counted."""

    def inverse_frequencies(self) -> Tensor:
        """(D / 2,) float32 rotary frequencies of the language model, from its configuration."""

    def values(self) -> tuple[Tensor, Tensor]:
        """Value states of the stage's signal layer: (G, T, D) of the text queries, (G, V, D)."""

    def other_values(self) -> Tensor:
        """(G, O, D) value states of that layer: all tokens outside this image, the text first."""

    def keys(self) -> tuple[Tensor, Tensor]:
        """Rotated key states of that layer: (G, T, D) of the text queries, (G, V, D)."""

    def last_attention(self) -> Tensor:
        """(V,) attention that the last prompt token pays in that layer, mean over heads, float32.

        Computed once a stage for the whole batch.
        """

    def attention(self, rows: Tensor) -> Tensor:
        """(R, V) attention of that layer, mean over heads, float32.

        Args:
            rows: (R,) indices into the text queries.
        """

    def mean_attention(self, weights: Tensor) -> Tensor:
        """(V,) weighted mean of the text queries' attention, computed a few rows at a time.

        Args:
            weights: (T,) a weight for each text query; 0 leaves a query out.
        """

    def embeddings(self) -> Tensor:
        """(V0, C) inputs of layer 0, of all tokens of the image."""

    def text_embeddings(self) -> Tensor:
        """(T, C) inputs of layer 0, of the text queries."""

    def hidden(self) -> Tensor:
        """(V, C) hidden states at the input of the stage's layer."""

    def text_hidden(self) -> Tensor:
        """(T, C) hidden states of the text queries there; needs `hidden`."""

    def final_norm(self, states: Tensor) -> Tensor:
        """(N, C) states behind the norm that follows the last decoder layer; needs `hidden`."""

    def tower_attention(
        self,
        layer: int | float = -2,
        queries: Literal["auto", "cls", "all"] = "auto",
        heads: Literal["mean", "joined"] = "mean",
    ) -> Tensor:
        """(V,) attention that each token receives in a layer of the vision tower, float32.

        Mean over the patches that make up a token.

        Args:
            layer: A layer of the tower that the stage declares: its index, 0 for the first or -1
                for the last, or a fraction of the tower's depth.
            queries: Who pays the attention. "all": the mean over every patch of the token's tile,
                frame or window, and [CLS]; tokens of tiles or windows of different sizes are then
                not comparable. "cls": [CLS] alone, refused where the tower has none. "auto": "cls"
                where there is one, else "all".
            heads: "mean" over the attention of the heads; "joined" is the attention of a single
                head whose queries and keys are those of all heads side by side, divided by the
                square root of its width.
        """

    def tower_keys(self, layer: int | float = -2) -> Tensor:
        """(H, V, D) key states of a layer of the vision tower, mean over a token's patches."""

    def tower_features(self) -> Tensor:
        """(V, F) inputs of the projector, the features of a token's patches side by side."""

    def tower_cls(self) -> Tensor | None:
        """(N, F) features of the [CLS] tokens of the image's `N` tiles.

        None where the tower has no [CLS], or where the projector takes several patches at once.
        """

    def project(self, features: Tensor) -> Tensor:
        """(N, C) embeddings that the projector makes of (N, F) features."""

    def question(self) -> str:
        """The user's question."""

    def text_relevance(self) -> Tensor:
        """(V,) float32 cosine between token and question in the space of the tower's text encoder.

        A long question is cut into segments; the cosine is the mean over them.
        """
