"""The contract of a vision tower: which patches make up a visual token, and how to read them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from ivcp.core.errors import UserError


class VisionTower(ABC):
    """How to read one model's vision tower; it neither loads nor runs the tower.

    A call of the tower processes `R` rows: the patches of all images, tiles or frames in the order
    of the tower's blocks, each image, tile or frame with its [CLS] row where the tower has one. `P`
    patches make up one visual token of the language model (1, or 4 where 2 x 2 patches are merged).

    Attributes:
        per_tile: Whether `patches` and `cls_rows` have an entry for each tile instead of each
            image, because a call does not contain which tiles make up an image (InternVL).
        frames_as_images: Whether frames of videos go through the image encoder, among the images.
        has_cls: Whether each image, tile or frame begins with a [CLS] row.
        blocks: The tower's transformer blocks, in order.
        feature_site: The module whose input or output holds the (R, Ct) or (T, N, Ct) states that
            the projector's features are taken from, [CLS] rows included; and which of both.
    """

    per_tile: ClassVar[bool] = False
    frames_as_images: ClassVar[bool] = False

    has_cls: bool = False
    blocks: Sequence[nn.Module]
    feature_site: tuple[nn.Module, Literal["input", "output"]]

    @abstractmethod
    def segments(self, block: int, call: Mapping[str, Any]) -> list[int]:
        """Lengths of the runs of rows within which a block attends; they sum to R.

        Args:
            block: Index of the block, 0 .. len(blocks) - 1.
            call: Arguments of the image encoder; small tensors are on the CPU.
        """

    @abstractmethod
    def patches(self, call: Mapping[str, Any]) -> list[Tensor]:
        """For each image or video of a call, (V, P) rows of its visual tokens' patches, on the CPU.

        Tokens are in the order of `ImageLayout.tokens`; -1 stands for a patch beyond the edge.
        """

    @abstractmethod
    def cls_rows(self, call: Mapping[str, Any]) -> list[Tensor]:
        """For each image of a call, (N,) its [CLS] rows, on the CPU; empty if there are none."""

    @abstractmethod
    def queries(
        self, block: nn.Module, hidden: Tensor, rows: slice | Tensor, context: Mapping[str, Any]
    ) -> Tensor:
        """(H, R', D) scaled-dot-product queries of some rows, after norm and rotation.

        Args:
            block: The block.
            hidden: (R, Ct) its input.
            rows: A slice of the rows, or (R',) indices on the device of `hidden`.
            context: The block's keyword arguments in this call.
        """

    @abstractmethod
    def keys(
        self, block: nn.Module, hidden: Tensor, rows: slice | Tensor, context: Mapping[str, Any]
    ) -> Tensor:
        """(H, R', D) keys of some rows, likewise."""

    @abstractmethod
    def scale(self, block: nn.Module) -> float:
        """Factor on a block's products of queries and keys."""

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """(N, C) embeddings of (N, P * Ct) features, as the model's projector makes them."""


def layer_index(layer: int | float, count: int) -> int | None:
    """Index of a block of a vision tower, or None if the tower has no such block.

    Args:
        layer: As a method counts: 0 is the first, -1 the last; a fraction between 0 and 1 is the
            block behind that part of the tower, whatever its depth.
        count: Blocks of the tower.

    >>> layer_index(-2, 24), layer_index(1 / 3, 24), layer_index(1 / 3, 2), layer_index(24, 24)
    (22, 8, 1, None)
    """
    if isinstance(layer, float) and 0 < layer < 1:
        return min(round(layer * count), count - 1)
    return int(layer) % count if layer in range(-count, count) else None


def tower_block(layer: int | float, count: int, pruner: str, model: str) -> int:
    """Index of a block of a vision tower.

    Args:
        layer: As a method counts, see `layer_index`.
        count: Blocks of the tower.
        pruner: Name of the method, for the message.
        model: Likewise of the model.

    Raises:
        UserError: The tower has no such layer.
    """
    block = layer_index(layer, count)
    if block is None:
        raise UserError(
            f"{pruner} looks at layer {layer} of the vision tower, but that of {model} has {count} "
            f"layers: give a number in {-count} .. {count - 1}."
        )
    return block
