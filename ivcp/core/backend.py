"""The contract of a server that answers a run's prompts in place of a model of transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ivcp.core.family import ModelFamily
from ivcp.core.pruner import Pruner


@dataclass(frozen=True)
class ServedPrompt:
    """One prompt for a server.

    Attributes:
        ids: Token ids, one placeholder for each image.
        images: The images, at the size at which the model sees them.
        sample_id: The sample's id, of which seeds are made.
    """

    ids: tuple[int, ...]
    images: tuple[Image.Image, ...]
    sample_id: str


class Backend(ABC):
    """A server that a run starts, and stops at its end."""

    @abstractmethod
    def fitted(self, pruner: Pruner) -> Pruner:
        """The method with the layer at which the server can prune instead of "auto"."""

    @abstractmethod
    def check(self, family: ModelFamily, pruner: Pruner) -> None:
        """Refuse a pair that cannot be served, before anything is loaded.

        Raises:
            UserError: It cannot.
        """

    @abstractmethod
    def check_generation(self, generation: Mapping[str, Any]) -> None:
        """Refuse arguments of `generate` that the server has no name for.

        Raises:
            UserError: There is one.
        """

    @abstractmethod
    def start(self, family: ModelFamily, pruner: Pruner) -> None:
        """Load the model."""

    @abstractmethod
    def answer(
        self, prompts: Sequence[ServedPrompt], generation: Mapping[str, Any], seed: int
    ) -> list[list[int]]:
        """Answer tokens of each prompt, the closing one included.

        Args:
            prompts: All prompts that may be answered together.
            generation: Keyword arguments of `generate`.
            seed: Of what is sampled.
        """

    @abstractmethod
    def stop(self) -> None:
        """Free what the server holds."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Device, dtype and attention of the record."""
