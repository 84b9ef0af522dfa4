"""What a pruner is shown: one image of one sample, read from a running forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ivcp.core.devices import to_device
from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout
from ivcp.core.pruner import Stage
from ivcp.core.text_encoder import TextEncoder
from ivcp.core.view import Signal
from ivcp.engine.encoding import Encoding
from ivcp.engine.sample_tokens import Row, Visual
from ivcp.engine.signals import LayerSignals


@dataclass
class Forward:
    """What one forward pass shows at a stage; shared by all views.

    Attributes:
        pruner: Name of the method, for messages.
        layers: Number of decoder layers.
        positions: (A, B, S) position ids of the tokens that entered layer 0.
        inverse_frequencies: (D / 2,) rotary frequencies.
        embeddings: (B, S, C) inputs of layer 0, if a stage needs them.
        encodings: Calls of the image encoder, by "image" and "video".
        questions: The question of each row, if the caller said.
        text_encoder: Gives the text tower, if the family has one.
        stage: The stage.
        hidden: (B, P, C) inputs of the stage's layer.
        signals: What the stage's decoder layer shows, if it needs that.
    """

    pruner: str
    layers: int
    positions: Tensor
    inverse_frequencies: Tensor
    embeddings: Tensor | None
    encodings: dict[str, Encoding]
    questions: Sequence[str] | None
    text_encoder: Callable[[], TextEncoder] | None
    stage: Stage
    hidden: Tensor
    signals: LayerSignals | None = None


@dataclass
class ImageView:
    """Implements `ivcp.core.view.View`; every signal is computed when it is asked for.

    Attributes:
        forward: What the running forward pass shows.
        batch: The sample's row.
        row: What is left of the sample.
        visual: What is left of the image.
        make_id: Gives the sample's id.
    """

    forward: Forward
    batch: int
    row: Row
    visual: Visual
    make_id: Callable[[], str]

    @cached_property
    def image(self) -> ImageLayout:
        """The image's grids and their places in the prompt; a copy, which the pruner may spoil."""
        layout = self.visual.layout
        return replace(layout, grids=tuple(replace(grid) for grid in layout.grids))

    @property
    def index(self) -> Tensor:
        """(V,) the current visual tokens as indices into the image's own tokens."""
        return self.visual.index.clone()

    @property
    def notes(self) -> dict[str, Tensor]:
        """What earlier stages of this forward pass left for later ones."""
        return self.visual.notes

    @property
    def sample_id(self) -> str:
        """The caller's id of the sample, else a digest of its prompt."""
        return self.make_id()

    @property
    def layers(self) -> int:
        """Number of decoder layers, `L`."""
        return self.forward.layers

    @cached_property
    def slots(self) -> Tensor:
        """(V,) column of each current visual token in the present, padded rows."""
        return self.row.columns[self.visual.places]

    @cached_property
    def queries(self) -> Tensor:
        """(T,) columns of the text queries in the present rows."""
        return self.row.queries(self.row.layout.text_queries(self.visual.layout))

    def _require(self, signal: Signal) -> None:
        if signal not in self.forward.stage.needs:
            raise UserError(
                f"{self.forward.pruner} reads the signal {signal!r} before layer "
                f"{self.forward.stage.layer} without naming it in the needs of that stage."
            )

    def _layer(self, signal: Signal) -> LayerSignals:
        self._require(signal)
        if self.forward.signals is None:
            raise RuntimeError("no decoder layer is shown at this stage")
        return self.forward.signals

    def positions(self) -> Tensor:
        """(A, V)."""
        self._require("positions")
        columns = self.row.first[self.visual.tokens[self.visual.index]]
        return self.forward.positions[:, self.batch, columns]

    def inverse_frequencies(self) -> Tensor:
        """(D / 2,)."""
        self._require("positions")
        return self.forward.inverse_frequencies.clone()

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(T, C) and (V0, C)."""
        self._require("embeddings")
        if self.forward.embeddings is None:
            raise RuntimeError("the inputs of layer 0 were not kept")
        rows = self.forward.embeddings[self.batch]
        first, tokens = self.row.first.to(rows.device), self.visual.tokens.to(rows.device)
        queries = self.row.layout.text_queries(self.visual.layout)
        if not len(queries):  # as in `queries`, the last token asks
            queries = torch.tensor([self.row.layout.length - 1])
        queries = to_device(queries, rows.device)
        device = self.forward.hidden.device
        return rows[first[queries]].to(device), rows[first[tokens]].to(device)

    def hidden(self) -> Tensor:
        """(V, C)."""
        self._require("hidden")
        return self.forward.hidden[self.batch, self.slots]

    def values(self) -> tuple[Tensor, Tensor]:
        """(G, T, D) and (G, V, D)."""
        columns = torch.cat([self.queries, self.slots])
        _, values = self._layer("values").states(self.batch, columns)
        text, visual = torch.split(values, [len(self.queries), len(self.slots)], 1)
        return text, visual

    def other_values(self) -> Tensor:
        """(G, O, D)."""
        others = [image.places for image in self.row.images if image is not self.visual]
        columns = self.row.columns[torch.cat([self.row.text, *others])]
        return self._layer("values").states(self.batch, columns)[1]

    def keys(self) -> Tensor:
        """(G, V, D)."""
        return self._layer("keys").states(self.batch, self.slots)[0]

    def last_attention(self) -> Tensor:
        """(V,)."""
        return self._layer("attention").last[self.batch, self.slots]

    def attention(self, rows: Tensor) -> Tensor:
        """(R, V)."""
        found = self._layer("attention").attention(self.batch, self.queries[rows])
        return found[:, self.slots]

    def mean_attention(self, weights: Tensor) -> Tensor:
        """(V,)."""
        signals = self._layer("attention")
        return signals.mean_attention(self.batch, self.queries, weights)[self.slots]

    @cached_property
    def _encoding(self) -> Encoding:
        kind = "video" if self.visual.layout.grids[0].kind == "frame" else "image"
        if kind not in self.forward.encodings:
            raise UserError(
                f"{self.forward.pruner} looks at the vision tower, but the images were encoded "
                "outside of pruned(...): encode them inside, or pass pixel_values."
            )
        return self.forward.encodings[kind]

    @cached_property
    def _patches(self) -> Tensor:
        """(V, P) rows of the current tokens' patches in the tower."""
        patches = self._encoding.patches_of(self.visual.layout)
        return to_device(patches, self.forward.hidden.device)[self.visual.index]

    def tower_attention(
        self, layer: int = -2, queries: Literal["auto", "cls", "all"] = "auto"
    ) -> Tensor:
        """(V,)."""
        self._require("tower_attention")
        reading = self._encoding.reading
        received = reading.attention(self._block(layer), reading.queries(queries))
        return reading.token_mean(received, self._patches).to(self.forward.hidden.device)

    def tower_keys(self, layer: int = -2) -> Tensor:
        """(H, V, D)."""
        self._require("tower_keys")
        reading = self._encoding.reading
        keys = reading.keys(self._block(layer)).transpose(1, 2)  # (H, D, R)
        mean = reading.token_mean(keys, self._patches)  # (H, D, V)
        return mean.transpose(1, 2).to(self.forward.hidden.device)

    def _block(self, layer: int) -> int:
        """Index of a tower block that the stage declared."""
        reading = self._encoding.reading
        count = len(reading.tower.blocks)
        declared = {one % count for one in self.forward.stage.tower_layers}
        if not -count <= layer < count or layer % count not in declared:
            raise UserError(
                f"{self.forward.pruner} reads layer {layer} of the vision tower, but its stage "
                f"declares tower_layers {list(self.forward.stage.tower_layers)}: add it there."
            )
        return layer % count

    def tower_features(self) -> Tensor:
        """(V, F)."""
        self._require("tower_features")
        features = self._encoding.reading.token_features(self._patches)
        return features.to(self.forward.hidden.device)

    def tower_cls(self) -> Tensor | None:
        """(N, F), or None."""
        self._require("tower_features")
        rows = self._encoding.cls_rows_of(self.visual.layout)
        if not len(rows) or self._patches.shape[1] > 1:
            return None
        features = self._encoding.reading.features()
        return features[to_device(rows, features.device)].to(self.forward.hidden.device)

    def project(self, features: Tensor) -> Tensor:
        """(N, C)."""
        self._require("tower_features")
        projected = self._encoding.reading.tower.project(features)
        return projected.to(self.forward.hidden)

    def question(self) -> str:
        """The user's question."""
        self._require("question")
        if self.forward.questions is None:
            raise UserError(
                f"{self.forward.pruner} reads the question: set session.questions to the "
                "question of each sample before each batch."
            )
        return self.forward.questions[self.batch]

    def text_relevance(self) -> Tensor:
        """(V,)."""
        self._require("text_encoder")
        if self.forward.text_encoder is None:
            raise RuntimeError("the family has no text encoder")
        encoder = self.forward.text_encoder()
        features = self._encoding.reading.token_features(self._patches)
        return encoder.relevance(features, self.question()).to(self.forward.hidden.device)
