"""Calls of the image encoder, with what passed through the vision tower."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.layout import ImageLayout
from ivcp.core.tower import VisionTower
from ivcp.engine.tower import TowerReading


@dataclass
class Encoding:
    """One call of `get_image_features` or `get_video_features`.

    Attributes:
        kind: "image" or "video".
        arguments: Its arguments.
        blocks: For each tower block that is looked at, its input (R, Ct) and keyword arguments.
        features: (R, Ct) states from which the projector's features are taken.
        facts: Small arguments on the CPU, once they were fetched.
        tower: How to read the tower, if a stage looks at it.
    """

    kind: str
    arguments: dict[str, Any]
    blocks: dict[int, tuple[Tensor, dict[str, Any]]] = field(default_factory=dict)
    features: Tensor | None = None
    facts: Mapping[str, Tensor] = field(default_factory=dict)
    tower: VisionTower | None = None
    _result: weakref.ref[Any] | None = None

    def returned(self, result: Any) -> None:
        """Note what the call returned, which `generate` hands to the forward pass."""
        first = next(_tensors(result), None)
        self._result = None if first is None else weakref.ref(first)

    def gave(self, output: Any) -> bool:
        """Whether these features are what the call returned."""
        first = next(_tensors(output), None)  # accelerate's hooks rebuild the containers
        return first is not None and self._result is not None and self._result() is first

    @property
    def forgotten(self) -> bool:
        """Whether nobody holds the features any more, so that no pass can come with them."""
        return self._result is None or self._result() is None

    @cached_property
    def call(self) -> dict[str, Any]:
        """The arguments, small ones on the CPU."""
        small = {name: fact for name, fact in self.facts.items() if name in self.arguments}
        return {**self.arguments, **small}

    @cached_property
    def reading(self) -> TowerReading:
        """The signals of the tower in this call.

        Raises:
            UserError: The tower did not run in this call.
        """
        if self.tower is None or self.features is None:
            raise UserError(
                "The method looks at the vision tower, but the images' features were made without "
                "it: pass pixel_values."
            )
        return TowerReading(self.tower, self.call, self.blocks, self.features)

    @cached_property
    def _patches(self) -> list[Tensor]:
        return self.reading.tower.patches(self.call)

    @cached_property
    def _cls_rows(self) -> list[Tensor]:
        return self.reading.tower.cls_rows(self.call)

    def patches_of(self, image: ImageLayout) -> Tensor:
        """(V, P) rows of the image's tokens' patches, on the CPU."""
        return torch.cat(self._patches[self._entries(image)])

    def cls_rows_of(self, image: ImageLayout) -> Tensor:
        """(N,) the image's [CLS] rows, on the CPU."""
        return torch.cat(self._cls_rows[self._entries(image)])

    def _entries(self, image: ImageLayout) -> slice:
        """Which entries of the tower's lists are the image's."""
        count = len(image.grids) if self.reading.tower.per_tile else 1
        return slice(image.number, image.number + count)


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in what an image encoder returns."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping | list | tuple):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def matching(encodings: list[Encoding], kwargs: Mapping[str, Any]) -> dict[str, Encoding]:
    """The call behind the features of each modality of a forward pass, if it was seen."""
    found = {}
    for kind, output in (kwargs.get("mm_encoder_outputs") or {}).items():
        for encoding in encodings:
            if encoding.gave(output):
                found[kind] = encoding
    return found
