"""The contract of a model family: how to load a model, prompt it, decode it, and look inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from torch import Tensor, nn

from ivcp.core.errors import UserError
from ivcp.core.layer_kinds import LayerKind, layer_kinds
from ivcp.core.layout import PromptLayout
from ivcp.core.text_encoder import TextEncoder
from ivcp.core.tower import VisionTower
from ivcp.core.types import Box, Sample, Task
from ivcp.core.view import Signal

Rows: TypeAlias = Sequence[Tensor]
"""One tensor for each sample of a batch."""
Inputs: TypeAlias = Mapping[str, Any]
"""Model inputs by name."""

TOKEN_PIXELS = 28 * 28
"""Pixels that one visual token shows, for families without an estimate of their own."""


@dataclass(frozen=True)
class BoxFrame:
    """The coordinate frame in which a model writes boxes for one image.

    Attributes:
        width: Width of the image in the model's units.
        height: Height of the image in the model's units.
        image_width: Width of the original image in pixels.
        image_height: Height of the original image in pixels.
        left: x of the image's left edge in the model's units; not 0 where the image is padded or
            cropped.
        top: y of its upper edge, likewise.
    """

    width: float
    height: float
    image_width: int
    image_height: int
    left: float = 0.0
    top: float = 0.0

    def to_pixels(self, box: Box) -> Box:
        """The box in pixels of the original image."""
        x, y = self.image_width / self.width, self.image_height / self.height
        left, top = self.left, self.top
        return (box[0] - left) * x, (box[1] - top) * y, (box[2] - left) * x, (box[3] - top) * y


@dataclass(frozen=True)
class Encoded:
    """A batch, ready for `model.generate`.

    Attributes:
        inputs: Keyword arguments of `generate`, on the CPU, rows padded on the left.
        prompts: Prompt text of each sample.
        box_frames: Coordinate frame in which the model writes boxes, from the processor's real
            grid of each sample's last image.
        visible_areas: For each image of each sample, the area that the model is shown, as fractions
            of width and height; beyond 0 .. 1 where it is padded.
        image_tokens: For each sample, tokens that its images take, structural ones included; None
            if the family does not tell.
        frames: For each sample, of how many frames each of its videos consists that is shown as
            images, one a frame; None where videos are shown as videos.
        saved_tokens: For each sample, how many more tokens its prompt would have had if its images
            had not been resized for a pruner; None if none were.
    """

    inputs: dict[str, Tensor]
    prompts: list[str]
    box_frames: list[BoxFrame]
    visible_areas: list[list[Box]]
    image_tokens: list[int] | None = None
    frames: list[list[int]] | None = None
    saved_tokens: list[int] | None = None


class ModelAdapter(ABC):
    """What the engine must know about a Hugging Face model; an adapter neither loads nor prompts.

    Attributes:
        model_types: Values of `model.config.model_type` that this family serves.
        takes_videos: Whether the model takes videos beside images.
        needs_ids: Whether visual tokens are found by token ids.
        makes_square: Whether the image processor pads or crops images to a square, which shows in
            none of the model's inputs.
        supported_kinds: Kinds of decoder layers with which a model of this family can be pruned.
        bidirectional: Whether the visual tokens of an image attend to each other in both
            directions, in all decoder layers.
    """

    model_types: ClassVar[tuple[str, ...]]
    takes_videos: ClassVar[bool] = False
    needs_ids: ClassVar[bool] = True
    makes_square: ClassVar[bool] = False
    supported_kinds: ClassVar[frozenset[LayerKind]] = frozenset({"full"})
    bidirectional: ClassVar[bool] = False

    def layer_kinds(self, config: Any) -> tuple[LayerKind, ...]:
        """The kind of each decoder layer of a model of this configuration.

        Raises:
            UserError: A layer is of a kind that is not known.
        """
        return layer_kinds(config)

    @abstractmethod
    def provides(self, config: Any) -> frozenset[Signal]:
        """Signals that a pruner can read from a model of this configuration."""

    @abstractmethod
    def entry(self, model: nn.Module) -> nn.Module:
        """The module whose keyword arguments hold `input_ids` and the image grids."""

    @abstractmethod
    def decoder(self, model: nn.Module) -> nn.Module:
        """The language model; it has `layers` and `rotary_emb`, and takes `position_ids`."""

    @abstractmethod
    def vision(self, model: nn.Module) -> nn.Module:
        """The vision tower, whose time is the vision phase; a projector beside it is left out."""

    def tower(self, model: nn.Module) -> VisionTower:
        """How to read the vision tower's blocks; only for families that provide its signals."""
        raise NotImplementedError(f"{type(self).__name__} provides no signals of its vision tower")

    def text_encoder(self, model: nn.Module) -> Callable[[], TextEncoder] | None:
        """Loader of the text encoder that was trained with the vision tower; None without one."""
        return None

    def layout_inputs(self, model: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
        """Small tensors, on any device, that `layouts` gets on the CPU instead of the inputs.

        The engine fetches them together with the token ids, so that the host waits once.

        Args:
            model: The Hugging Face model.
            inputs: Keyword arguments of the forward pass and of the image encoder.
        """
        return {}

    @abstractmethod
    def layouts(
        self, model: nn.Module, rows: Rows, positions: Rows | None, inputs: Inputs
    ) -> list[PromptLayout]:
        """Layout of each sample.

        Args:
            model: The Hugging Face model.
            rows: (S,) token ids of each sample on the CPU, padding removed.
            positions: (A, S) position ids likewise, if the caller passed some with several axes.
            inputs: Keyword arguments of the forward pass and of the image encoder, replaced by
                `layout_inputs` where the names agree.

        Raises:
            UserError: An image is only partly in this forward pass.
        """

    def inverse_frequencies(self, model: nn.Module) -> Tensor:
        """(D / 2,) float32 rotary frequencies on the CPU, as the configuration defines them."""
        rotary: Any = self.decoder(model).rotary_emb
        return rotary.inv_freq.float().cpu()

    def rotary(self, decoder: nn.Module, hidden: Tensor, ids: Tensor, kind: LayerKind) -> Any:
        """The position embeddings that the language model gives to layers of a kind.

        Args:
            decoder: The language model.
            hidden: (B, N, C) states, for their dtype and device.
            ids: (B, N) or (A, B, N) position ids.
            kind: The kind of layers.
        """
        return decoder.rotary_emb(hidden, ids)  # type: ignore[operator]

    def position_axes(self, model: nn.Module) -> int:
        """Axes of the language model's position ids: 1, or 3 for M-RoPE."""
        return 1

    def cached_states(
        self, layer: nn.Module, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, G, N, D) rotated key states and value states, from what a cache stores.

        Args:
            layer: The decoder layer.
            keys: (B, G, N, D) slots as the cache stores them.
            values: Likewise.
        """
        return keys, values

    @abstractmethod
    def stored_states(
        self, layer: nn.Module, hidden: Tensor, rotary: Any, *, values: bool = True
    ) -> tuple[Tensor, Tensor]:
        """The keys and values that a layer would store in its cache.

        Args:
            layer: A decoder layer.
            hidden: (B, R, C) rows of its input.
            rotary: Its position embeddings for these rows.
            values: Whether values are needed; if not, the keys may be returned in their place.
        """

    @abstractmethod
    def query_states(self, layer: nn.Module, hidden: Tensor, rotary: Any) -> Tensor:
        """(B, H, R, D) rotated query states of rows of a layer's input.

        Args:
            layer: A decoder layer.
            hidden: (B, R, C) rows of its input.
            rotary: The layer's position embeddings for these rows.
        """

    def final_norm(self, decoder: nn.Module, states: Tensor) -> Tensor:
        """(N, C) states behind the norm that follows the last layer.

        Args:
            decoder: The language model.
            states: (N, C) hidden states, on any device.

        Raises:
            UserError: The language model has no norm of a known name.
        """
        norm: Any = getattr(decoder, "norm", getattr(decoder, "final_layernorm", None))  # Phi
        if norm is None:
            raise UserError(f"{type(decoder).__name__} has no final norm of a known name.")
        device = next(norm.parameters()).device
        # accelerate's offload leaves weights on "meta" until the norm runs
        normed: Tensor = norm(states if device.type == "meta" else states.to(device))
        return normed.to(states)

    def attention_heads(self, layer: nn.Module) -> int:
        """Query heads of a layer."""
        return int(layer.self_attn.config.num_attention_heads)  # type: ignore[union-attr,arg-type]

    def attention_scale(self, layer: nn.Module) -> float:
        """Factor on a layer's products of queries and keys."""
        return float(layer.self_attn.scaling)  # type: ignore[union-attr,arg-type]


class ModelFamily(ModelAdapter):
    """A family with its prompts, processor and parser. Subclasses are frozen dataclasses.

    Attributes:
        frames_as_images: Whether a model that takes images only is shown a video as images, one a
            frame.
    """

    frames_as_images: ClassVar[bool] = False

    @abstractmethod
    def load(self, gpus: Sequence[int] | None = None) -> tuple[nn.Module, Any]:
        """The model in evaluation mode and its processor.

        Args:
            gpus: The GPUs over which a model may be spread; None for all.

        Raises:
            UserError: Weights are absent or a backend is not installed.
        """

    def release(self, model: nn.Module) -> None:
        """Free the weights of a model that `load` gave, whoever still holds it."""
        model.to_empty(device="meta")

    @abstractmethod
    def depth(self) -> int:
        """Number of decoder layers, from the configuration alone; no weights are read."""

    def tower_depth(self) -> int | None:
        """Number of blocks of the vision tower, likewise; None if it is not known before."""
        return None

    @abstractmethod
    def signals(self) -> frozenset[Signal]:
        """Signals that a pruner can read from the model, likewise."""

    def kinds(self) -> tuple[LayerKind, ...]:
        """The kind of each decoder layer, likewise.

        Raises:
            UserError: The family cannot prune such layers.
        """
        full: LayerKind = "full"
        return (full,) * self.depth()

    @abstractmethod
    def encode(self, processor: Any, samples: Sequence[Sample]) -> Encoded:
        """Prompts, model inputs and box frames of a batch.

        Args:
            processor: The processor that `load` returned.
            samples: One or more samples.
        """

    @abstractmethod
    def decode(self, processor: Any, tokens: Tensor) -> list[str]:
        """Answer texts of (B, N) generated token ids, without the prompt."""

    def expected_tokens(self, processor: Any, sizes: Sequence[tuple[int, int]]) -> float:
        """Visual tokens of a sample's images, structural ones between their rows included.

        Balances work between processes, and tells what a resized image saves.

        Args:
            processor: The processor that `load` returned.
            sizes: Width and height of each image.
        """
        return sum(width * height for width, height in sizes) / TOKEN_PIXELS

    def remarks(self, task: Task) -> tuple[str, ...]:
        """Sentences that a reader of results of this task must know of the model."""
        return ()

    def identity(self) -> str:
        """A string that changes with the weights, found without reading all of them."""
        return ""

    @abstractmethod
    def parse_box(self, text: str) -> Box | None:
        """The first box in an answer, in the model's frame; None if there is none."""
