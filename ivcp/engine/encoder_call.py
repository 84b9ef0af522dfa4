"""Calls of the image encoder, with what a session recorded of each."""

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
from ivcp.engine.tower_signals import TowerSignals


@dataclass
class EncoderCall:
    """One call of `get_image_features` or `get_video_features`.

    Attributes:
        kind: "image" or "video".
        arguments: Its arguments.
        blocks: For each tower block that a stage reads, its input (R, Ct) and keyword arguments.
        features: (R, Ct) states from which the projector's features are taken.
        host_inputs: Small arguments on the CPU, once the session has fetched them.
        tower: How to read the tower, if a stage reads it.
    """

    kind: str
    arguments: dict[str, Any]
    blocks: dict[int, tuple[Tensor, dict[str, Any]]] = field(default_factory=dict)
    features: Tensor | None = None
    host_inputs: Mapping[str, Tensor] = field(default_factory=dict)
    tower: VisionTower | None = None
    _result: weakref.ref[Any] | None = None  # weak: the session must not hold features alive

    def set_result(self, result: Any) -> None:
        """Remember what the call returned, by which its forward pass is recognised."""
        # the tensor, not the container: accelerate's hooks rebuild containers
        tensor = next(_tensors(result), None)
        self._result = None if tensor is None else weakref.ref(tensor)

    def returned(self, output: Any) -> bool:
        """Whether these features are what the call returned."""
        tensor = next(_tensors(output), None)
        return tensor is not None and self._result is not None and self._result() is tensor

    @property
    def unreachable(self) -> bool:
        """Whether the features are freed, so that no forward pass can use them."""
        return self._result is None or self._result() is None

    @cached_property
    def host_arguments(self) -> dict[str, Any]:
        """The arguments, small ones on the CPU."""
        small = {name: value for name, value in self.host_inputs.items() if name in self.arguments}
        return {**self.arguments, **small}

    @cached_property
    def signals(self) -> TowerSignals:
        """The signals of the tower in this call.

        Raises:
            UserError: The tower did not run in this call.
        """
        if self.tower is None or self.features is None:
            raise UserError(
                "The method looks at the vision tower, but the images' features were made without "
                "it: pass pixel_values."
            )
        return TowerSignals(self.tower, self.host_arguments, self.blocks, self.features)

    @cached_property
    def _patches(self) -> list[Tensor]:
        return self.signals.tower.patches(self.host_arguments)

    @cached_property
    def _cls_rows(self) -> list[Tensor]:
        return self.signals.tower.cls_rows(self.host_arguments)

    def patches_of(self, image: ImageLayout) -> Tensor:
        """(V, P) rows of the patches of the image's tokens, on the CPU."""
        return torch.cat(self._patches[self._entries(image)])

    def cls_rows_of(self, image: ImageLayout) -> Tensor:
        """(N,) the image's [CLS] rows, on the CPU."""
        return torch.cat(self._cls_rows[self._entries(image)])

    def _entries(self, image: ImageLayout) -> slice:
        """The image's entries in the tower's lists."""
        count = len(image.grids) if self.signals.tower.per_tile else 1
        return slice(image.number, image.number + count)


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors in the output of an image encoder."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping | list | tuple):
        for item in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(item)


def matching_calls(calls: list[EncoderCall], kwargs: Mapping[str, Any]) -> dict[str, EncoderCall]:
    """By "image" and "video", the call that made the features of a forward pass, if recorded."""
    return {
        kind: call
        for kind, output in (kwargs.get("mm_encoder_outputs") or {}).items()
        for call in calls
        if call.returned(output)
    }
