"""The view of one image that a pruner reads, backed by a running forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout
from ivcp.core.pruner import Stage
from ivcp.core.text_encoder import TextEncoder
from ivcp.core.tower import layer_index
from ivcp.core.transfer import to_device
from ivcp.core.view import Signal
from ivcp.engine.encoder_call import EncoderCall
from ivcp.engine.layer_signals import LayerSignals
from ivcp.engine.sample_tokens import ImageTokens, SampleTokens


@dataclass
class StageState:
    """The state of a forward pass at a stage, shared by the views of all images.

    Attributes:
        pruner: Name of the method, for messages.
        layers: Number of decoder layers.
        positions: (A, B, S) position ids of the tokens that entered layer 0.
        inverse_frequencies: (D / 2,) rotary frequencies.
        embeddings: (B, S, C) inputs of layer 0, if a stage needs them.
        encoder_calls: Calls of the image encoder, by "image" and "video".
        questions: The question of each row, if the caller set them.
        text_encoder: Loader of the text tower, if the family has one.
        stage: The stage.
        hidden: (B, P, C) inputs of the stage's layer.
        final_norm: The norm behind the last layer.
        signals: Signals of a decoder layer, if the stage needs them.
        flops: Operations of the decoder's layers, given the tokens of each, and of a first pass.
    """

    pruner: str
    layers: int
    flops: Callable[[Sequence[int], Sequence[int]], int]
    positions: Tensor
    inverse_frequencies: Tensor
    embeddings: Tensor | None
    encoder_calls: dict[str, EncoderCall]
    questions: Sequence[str] | None
    text_encoder: Callable[[], TextEncoder] | None
    stage: Stage
    hidden: Tensor
    final_norm: Callable[[Tensor], Tensor]
    signals: LayerSignals | None = None


@dataclass
class ImageView:
    """Implements `ivcp.core.view.View`; every signal is computed when the pruner reads it.

    Attributes:
        state: The state of the forward pass.
        batch: The sample's row in the batch; a scalar tensor where samples are selected at once.
        sample: The remaining tokens of the sample.
        visual: The remaining tokens of the image.
        make_id: Makes the sample's id.
    """

    state: StageState
    batch: int | Tensor
    sample: SampleTokens
    visual: ImageTokens
    make_id: Callable[[], str]

    @cached_property
    def image(self) -> ImageLayout:
        """The image's grids and their position in the prompt; a copy, so writing does no harm."""
        layout = self.visual.layout
        return replace(layout, grids=tuple(replace(grid) for grid in layout.grids))

    @property
    def index(self) -> Tensor:
        """(V,) index of each current visual token into the image."""
        return self.visual.index.clone()

    @property
    def notes(self) -> dict[str, Tensor]:
        """Tensors that earlier stages of this forward pass stored for later ones."""
        return self.visual.notes

    @property
    def sample_id(self) -> str:
        """The caller's id of the sample, else a digest of its prompt."""
        return self.make_id()

    @property
    def layers(self) -> int:
        """Number of decoder layers, `L`."""
        return self.state.layers

    @property
    def text_tokens(self) -> int:
        """Tokens of the prompt that belong to no image."""
        return len(self.sample.layout.text)

    @property
    def text_queries(self) -> int:
        """Number of text queries, `T`."""
        return len(self.queries)

    def prefill_flops(self, layer_tokens: Sequence[int], first_pass: Sequence[int] = ()) -> int:
        """Operations of the decoder's layers, by formula, if they process so many tokens."""
        return self.state.flops(layer_tokens, first_pass)

    @cached_property
    def slots(self) -> Tensor:
        """(V,) column of each current visual token in the current, padded rows."""
        return self.sample.columns[self.visual.ranks]

    @cached_property
    def queries(self) -> Tensor:
        """(T,) columns of the text queries in the current rows."""
        return self.sample.query_columns(self.sample.layout.text_queries(self.visual.layout))

    def _require(self, signal: Signal) -> None:
        if signal not in self.state.stage.needs:
            raise UserError(
                f"{self.state.pruner} reads the signal {signal!r} before layer "
                f"{self.state.stage.layer} without naming it in the needs of that stage."
            )

    def _layer(self, signal: Signal) -> LayerSignals:
        self._require(signal)
        if self.state.signals is None:
            raise RuntimeError("this stage has no signals of a decoder layer")
        return self.state.signals

    def positions(self) -> Tensor:
        """(A, V)."""
        self._require("positions")
        columns = self.sample.entry_columns[self.visual.tokens[self.visual.index]]
        return self.state.positions[:, self.batch, columns]

    def inverse_frequencies(self) -> Tensor:
        """(D / 2,)."""
        self._require("positions")
        return self.state.inverse_frequencies.clone()

    def embeddings(self) -> Tensor:
        """(V0, C)."""
        self._require("embeddings")
        return self._entered(self.visual.tokens)

    def text_embeddings(self) -> Tensor:
        """(T, C)."""
        self._require("text_embeddings")
        queries = self.sample.layout.text_queries(self.visual.layout)
        if not len(queries):  # as in `query_columns`, the last token is the query
            queries = torch.tensor([self.sample.layout.length - 1])
        return self._entered(queries)

    def _entered(self, tokens: Tensor) -> Tensor:
        """(N, C) inputs of layer 0 at prompt indices."""
        if self.state.embeddings is None:
            raise RuntimeError("the inputs of layer 0 were not kept")
        rows = self.state.embeddings[self.batch]
        columns = self.sample.entry_columns.to(rows.device)[to_device(tokens, rows.device)]
        return rows[columns].to(self.state.hidden.device)

    def hidden(self) -> Tensor:
        """(V, C)."""
        self._require("hidden")
        return self.state.hidden[self.batch, self.slots]

    def text_hidden(self) -> Tensor:
        """(T, C)."""
        self._require("hidden")
        return self.state.hidden[self.batch, self.queries]

    def final_norm(self, states: Tensor) -> Tensor:
        """(N, C)."""
        self._require("hidden")
        return self.state.final_norm(states)

    def _text_and_visual(self, signal: Literal["keys", "values"]) -> tuple[Tensor, Tensor]:
        """(G, T, D) and (G, V, D)."""
        # one read for both: a latent cache (DeepSeek-V2) expands what is read
        columns = torch.cat([self.queries, self.slots])
        keys, values = self._layer(signal).states(self.batch, columns)
        states = keys if signal == "keys" else values
        text, visual = torch.split(states, [len(self.queries), len(self.slots)], 1)
        return text, visual

    def values(self) -> tuple[Tensor, Tensor]:
        """(G, T, D) and (G, V, D)."""
        return self._text_and_visual("values")

    def other_values(self) -> Tensor:
        """(G, O, D)."""
        others = [image.ranks for image in self.sample.images if image is not self.visual]
        columns = self.sample.columns[torch.cat([self.sample.text, *others])]
        return self._layer("values").states(self.batch, columns)[1]

    def keys(self) -> tuple[Tensor, Tensor]:
        """(G, T, D) and (G, V, D)."""
        return self._text_and_visual("keys")

    def last_attention(self) -> Tensor:
        """(V,)."""
        return self._layer("attention").last_attention[self.batch, self.slots]

    def attention(self, rows: Tensor) -> Tensor:
        """(R, V)."""
        attention = self._layer("attention").attention(int(self.batch), self.queries[rows])
        return attention[:, self.slots]

    def mean_attention(self, weights: Tensor) -> Tensor:
        """(V,)."""
        signals = self._layer("attention")
        return signals.mean_attention(int(self.batch), self.queries, weights)[self.slots]

    @cached_property
    def _encoder_call(self) -> EncoderCall:
        kind = "video" if self.visual.layout.grids[0].kind == "frame" else "image"
        image = self.state.encoder_calls.get("image")
        if image is not None and image.tower is not None and image.tower.frames_as_images:
            kind = "image"
        if kind not in self.state.encoder_calls:
            raise UserError(
                f"{self.state.pruner} looks at the vision tower, but the images were encoded "
                "outside of pruned(...): encode them inside, or pass pixel_values."
            )
        return self.state.encoder_calls[kind]

    @cached_property
    def _patches(self) -> Tensor:
        """(V, P) rows of the current tokens' patches in the tower."""
        patches = self._encoder_call.patches_of(self.visual.layout)
        return to_device(patches, self.state.hidden.device)[self.visual.index]

    def tower_attention(
        self,
        layer: int | float = -2,
        queries: Literal["auto", "cls", "all"] = "auto",
        heads: Literal["mean", "joined"] = "mean",
    ) -> Tensor:
        """(V,)."""
        self._require("tower_attention")
        signals = self._encoder_call.signals
        received = signals.attention(self._block(layer), signals.queries(queries), heads)
        return signals.token_mean(received, self._patches).to(self.state.hidden.device)

    def tower_keys(self, layer: int | float = -2) -> Tensor:
        """(H, V, D)."""
        self._require("tower_keys")
        signals = self._encoder_call.signals
        keys = signals.keys(self._block(layer)).transpose(1, 2)  # (H, D, R)
        mean = signals.token_mean(keys, self._patches)  # (H, D, V)
        return mean.transpose(1, 2).to(self.state.hidden.device)

    def _block(self, layer: int | float) -> int:
        """Index of a tower block that the stage declared."""
        count = len(self._encoder_call.signals.tower.blocks)
        # a stage may declare -2 and the method read 22: both are compared as indices from 0
        declared = {layer_index(number, count) for number in self.state.stage.tower_layers}
        block = layer_index(layer, count)
        if block is None or block not in declared:
            raise UserError(
                f"{self.state.pruner} reads layer {layer} of the vision tower, but its stage "
                f"declares tower_layers {list(self.state.stage.tower_layers)}: add it there."
            )
        return block

    def tower_features(self) -> Tensor:
        """(V, F)."""
        self._require("tower_features")
        features = self._encoder_call.signals.token_features(self._patches)
        return features.to(self.state.hidden.device)

    def tower_cls(self) -> Tensor | None:
        """(N, F), or None."""
        self._require("tower_features")
        rows = self._encoder_call.cls_rows_of(self.visual.layout)
        if not len(rows) or self._patches.shape[1] > 1:  # [CLS] is a single row
            return None
        features = self._encoder_call.signals.states
        return features[to_device(rows, features.device)].to(self.state.hidden.device)

    def project(self, features: Tensor) -> Tensor:
        """(N, C)."""
        self._require("tower_features")
        projected = self._encoder_call.signals.tower.project(features)
        return projected.to(self.state.hidden)

    def question(self) -> str:
        """The user's question."""
        self._require("question")
        if self.state.questions is None:
            raise UserError(
                f"{self.state.pruner} reads the question: set session.questions to the "
                "question of each sample before each batch."
            )
        return self.state.questions[int(self.batch)]

    def text_relevance(self) -> Tensor:
        """(V,)."""
        self._require("text_encoder")
        if self.state.text_encoder is None:
            raise RuntimeError("the family has no text encoder")
        question = self.question()  # refused, if need be, before weights load
        encoder = self.state.text_encoder()
        features = self._encoder_call.signals.token_features(self._patches)
        return encoder.relevance(features, question).to(self.state.hidden.device)
