"""What a pruning method can look at, from the vision tower to the layer about to run."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from ivcp.core.layout import ImageLayout

Signal = Literal[
    "positions", "embeddings", "hidden", "values", "keys", "attention",
    "tower_attention", "tower_keys", "tower_features", "question", "text_encoder",
]  # fmt: skip
"""What a model can show a pruner. `values`, `keys` and `attention` are a decoder layer's, the
`tower_` signals the vision tower's; `question` is the user's text, and `text_encoder` the text
tower that was trained with the vision tower."""

LAYER_SIGNALS: frozenset[Signal] = frozenset({"values", "keys", "attention"})
TOWER_SIGNALS: frozenset[Signal] = frozenset({"tower_attention", "tower_keys", "tower_features"})


class View(Protocol):
    """One image of one sample, as it stands before the stage's layer.

    The `V` current visual tokens are those that earlier stages left; before the first stage all are
    there, and `image.spans` says where each grid begins among them. Tensors are on the model's
    device; `values`, `keys`, `embeddings`, `hidden` and tower states have the model's dtype. A
    signal that the stage did not declare in its `needs` is refused. All of them are copies.

    Attributes:
        image: The image's grids and their places in the prompt.
        index: (V,) indices of the current visual tokens into the image's own tokens; ascending but
            for merged tokens, which stand last at the index of the token whose place they took.
        sample_id: Stable id of the sample (given by the caller, else a digest of its prompt).
        layers: Number of decoder layers, `L`.
        notes: What earlier stages of this forward pass left for later ones.
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

    def positions(self) -> Tensor:
        """(A, V) position ids of the visual tokens, one row an axis; padding is not counted."""

    def inverse_frequencies(self) -> Tensor:
        """(D / 2,) float32 rotary frequencies of the language model, from its configuration."""

    def values(self) -> tuple[Tensor, Tensor]:
        """Value states of the stage's signal layer: (G, T, D) of the text queries, (G, V, D)."""

    def other_values(self) -> Tensor:
        """(G, O, D) value states of that layer, of the sample's tokens but this image's."""

    def keys(self) -> Tensor:
        """(G, V, D) key states of that layer, after the rotation."""

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
        """(V,) mean of the text queries' attention, weighted; rows are never held all at once.

        Args:
            weights: (T,) a weight for each text query; zeros leave a query out.
        """

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Inputs of layer 0: (T, C) of the text queries, (V0, C) of all the image's tokens."""

    def hidden(self) -> Tensor:
        """(V, C) hidden states that enter the stage's layer."""

    def tower_attention(
        self, layer: int = -2, queries: Literal["auto", "cls", "all"] = "auto"
    ) -> Tensor:
        """(V,) attention that each token receives in a layer of the vision tower, float32.

        Mean over heads, and over the patches that make up a token.

        Args:
            layer: Index of the tower's layer, 0 for the first or -1 for the last; declared by the
                stage. The attention is that inside the layer.
            queries: Who pays it. "all": every patch of the token's own tile, frame or window, and
                [CLS], in the mean, so that tokens of runs of other lengths do not compare as they
                are; "cls": [CLS] alone, refused where the tower has none; "auto": "cls" where there
                is one, else "all".
        """

    def tower_keys(self, layer: int = -2) -> Tensor:
        """(H, V, D) key states of a layer of the vision tower, mean over a token's patches."""

    def tower_features(self) -> Tensor:
        """(V, F) what the projector makes embeddings of, a token's patches side by side."""

    def tower_cls(self) -> Tensor | None:
        """(N, F) features of the [CLS] tokens of the image's `N` tiles.

        None where the tower has none, or where the projector could not take them.
        """

    def project(self, features: Tensor) -> Tensor:
        """(N, C) embeddings that the projector makes of (N, F) features."""

    def question(self) -> str:
        """The user's question."""

    def text_relevance(self) -> Tensor:
        """(V,) cosine between token and question in the space of the tower's own text encoder.

        The mean over the segments of a long question, float32.
        """
