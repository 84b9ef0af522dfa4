"""The contract of a pruning method: where it acts, what it looks at, what it keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout
from ivcp.core.selection import Selection, budget

Signal = Literal["positions", "embeddings", "hidden", "values", "keys", "attention"]
"""What a model family can show a pruner. `values`, `keys` and `attention` come from a decoder layer
that has run, so they exist only before layer 1 and later."""

LAYER_SIGNALS: frozenset[Signal] = frozenset({"values", "keys", "attention"})


class View(Protocol):
    """One image of one sample, as it stands before the stage's layer.

    The `V` current visual tokens are those that earlier stages left. Tensors are on the model's
    device; `values`, `keys`, `embeddings` and `hidden` have the model's dtype.

    Attributes:
        image: The image's grids and their places in the prompt.
        index: (V,) indices of the current visual tokens into the image's own tokens; ascending but
            for merged tokens, which stand last at the index of their centre.
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
        """(A, V) position ids of the visual tokens, one row an axis."""

    def inverse_frequencies(self) -> Tensor:
        """(D / 2,) rotary frequencies of the language model."""

    def values(self) -> tuple[Tensor, Tensor]:
        """Value states of the previous layer: (G, T, D) of the text queries, (G, V, D) visual."""

    def other_values(self) -> Tensor:
        """(G, O, D) value states of the previous layer, of the sample's tokens but this image's."""

    def keys(self) -> Tensor:
        """(G, V, D) key states of the previous layer, after the rotation."""

    def attention(self, rows: Tensor) -> Tensor:
        """(R, V) attention of the previous layer, mean over heads, float32.

        Args:
            rows: (R,) indices into the text queries.
        """

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Inputs of layer 0: (T, C) of the text queries, (V0, C) of all the image's tokens."""

    def hidden(self) -> Tensor:
        """(V, C) hidden states that enter the stage's layer."""


@dataclass(frozen=True)
class Stage:
    """One point at which visual tokens leave.

    Attributes:
        layer: Index of the decoder layer before which they leave; 0 is before the language model.
        cut_cache: Whether they also leave the KV cache of the layers that have run.
    """

    layer: int
    cut_cache: bool = True


@dataclass(frozen=True, kw_only=True)
class Pruner(ABC):
    """Base of all methods: a frozen record of hyperparameters and one decision.

    Attributes:
        keep_ratio: Fraction of an image's visual tokens that survive the last stage, in (0, 1].
    """

    keep_ratio: float = 0.5

    needs: ClassVar[frozenset[Signal]] = frozenset()

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: A field is out of its range.
        """
        if not isinstance(self.keep_ratio, int | float) or not 0 < self.keep_ratio <= 1:
            raise UserError(
                f"keep_ratio must be a number in (0, 1], the fraction of visual tokens to keep; "
                f"got {self.keep_ratio!r}."
            )

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """Where tokens leave, in ascending order of layers; empty for no pruning."""

    @abstractmethod
    def select(self, view: View, stage: int) -> Selection:
        """Decide for one image at `stages()[stage]`."""

    def renumbers(self) -> bool:
        """Whether surviving tokens get new, gapless positions instead of keeping their own."""
        return False

    def target(self, view: View) -> int:
        """Tokens of the view's image that survive the last stage."""
        return budget(self.keep_ratio, view.image.length)


def check_pair(pruner: Pruner, provides: frozenset[Signal], model: str, layers: int) -> None:
    """Refuse a pruner that the model cannot serve, before anything runs.

    Args:
        pruner: The method.
        provides: Signals of the model family.
        model: Name of the model, for the message.
        layers: Number of decoder layers.

    Raises:
        UserError: A signal is missing or a stage lies outside the model.
    """
    name = type(pruner).__name__
    if missing := sorted(pruner.needs - provides):
        raise UserError(
            f"{name} needs the signal {', '.join(missing)}, but {model} provides only "
            f"{', '.join(sorted(provides))}; use another pruner or model."
        )
    for stage in pruner.stages():
        if not isinstance(stage.layer, int):
            raise UserError(f"layer must be a whole number; got {stage.layer!r}.")
        first = 1 if pruner.needs & LAYER_SIGNALS else 0
        if not first <= stage.layer < layers:
            reason = f" ({name} looks at the layer before)" if first else ""
            raise UserError(
                f"layer must lie in {first} .. {layers - 1} for {model} with its {layers} decoder "
                f"layers{reason}; got {stage.layer}."
            )
