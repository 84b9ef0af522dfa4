"""The contract of a vision tower: which patches make up a visual token, and how to read them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn


class VisionTower(ABC):
    """How to read one model's vision tower; never loads or runs it as a whole.

    A call of the tower sees `R` rows: the patches of all images, tiles or frames one after the
    other, each with its [CLS] row where the tower has one, in the order in which the tower's blocks
    see them. `P` patches make up one visual token of the language model (1, or 4 where 2 x 2
    patches are merged).

    Attributes:
        per_tile: Whether a call does not say which tiles make up an image, so that `patches` and
            `cls_rows` have an entry for each tile.
        has_cls: Whether each image, tile or frame begins with a [CLS] row.
        blocks: The tower's transformer blocks, in order.
        feature_site: The module, and whether its input or its output, that holds the (R, Ct) or
            (T, N, Ct) states from which the projector's features are taken, [CLS] rows included.
    """

    per_tile: ClassVar[bool] = False

    has_cls: bool = False
    blocks: Sequence[nn.Module]
    feature_site: tuple[nn.Module, Literal["input", "output"]]

    @abstractmethod
    def segments(self, block: int, call: Mapping[str, Any]) -> list[int]:
        """Lengths of the runs of rows within which a block attends; they sum to R.

        Args:
            block: Index of the block, 0 .. len(blocks) - 1.
            call: Arguments with which the images were encoded; small ones are on the CPU.
        """

    @abstractmethod
    def patches(self, call: Mapping[str, Any]) -> list[Tensor]:
        """For each image or video of a call, (V, P) rows of its visual tokens' patches, on the CPU.

        Tokens are in the order of `ImageLayout.tokens`; -1 where a token reaches over the edge.
        A call of InternVL does not tell which tiles make up an image, so there each tile counts as
        an image here and in `cls_rows`.
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
            rows: Which rows, a slice or (R',) indices on the device of `hidden`.
            context: The block's keyword arguments in this call.
        """

    @abstractmethod
    def keys(
        self, block: nn.Module, hidden: Tensor, rows: slice | Tensor, context: Mapping[str, Any]
    ) -> Tensor:
        """(H, R', D) keys of some rows, likewise."""

    @abstractmethod
    def scale(self, block: nn.Module) -> float:
        """What a block multiplies the products of queries and keys by."""

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """(N, C) embeddings of (N, P * Ct) features, as the model's projector makes them."""
