"""The contract of servers that answer a run's prompts in place of a model of transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ivcp.core.errors import UserError
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


@dataclass(frozen=True, kw_only=True)
class ServedAnswer:
    """What a server gave for one prompt.

    Attributes:
        tokens: Answer tokens, the closing one included.
        kept: For each image, the tokens that were kept, as ascending indices into the image, each
            with the reason; None where the server does not tell.
        first_token_seconds: From when the server took up the prompt to the first token; None if
            unknown.
        decoding_seconds: From there to the last token, likewise.
        finite: Whether the logits were finite at all steps, as far as the server tells.
        failed: Why the prompt could not be answered; empty if it was.
    """

    tokens: Sequence[int] = ()
    kept: Sequence[Mapping[int, str]] | None = None
    first_token_seconds: float | None = None
    decoding_seconds: float | None = None
    finite: bool = True
    failed: str = ""


class Server(ABC):
    """A model that is loaded, and answers."""

    @abstractmethod
    def answer(self, prompts: Sequence[ServedPrompt]) -> list[ServedAnswer]:
        """Answers to prompts that are handed over together, in their order."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Device, dtype and attention, for the record."""

    @abstractmethod
    def stop(self) -> None:
        """Free what the server holds."""


class Backend(ABC):
    """How a run starts a server, or several that share the samples."""

    @property
    def copies(self) -> int:
        """How many servers a run starts, each in a process of its own."""
        return 1

    @abstractmethod
    def fitted(self, pruner: Pruner) -> Pruner:
        """The method with the layer at which the server can prune instead of "auto"."""

    @abstractmethod
    def check(self, family: ModelFamily, pruner: Pruner, generation: Mapping[str, Any]) -> None:
        """Refuse what cannot be served, before anything is loaded.

        Args:
            family: The model.
            pruner: The method.
            generation: Keyword arguments of `generate`.

        Raises:
            UserError: The model or the method cannot be served, or an argument has no counterpart.
        """

    @abstractmethod
    def start(
        self,
        family: ModelFamily,
        pruner: Pruner,
        generation: Mapping[str, Any],
        seed: int,
        number: int = 0,
    ) -> Server:
        """Load the model.

        Args:
            family: As in `check`, like the next two.
            pruner: Likewise.
            generation: Likewise.
            seed: Of what is sampled.
            number: Which of the servers it is, from 0.

        Raises:
            UserError: The server does not start.
        """


def fitted_for(backend: Any, pruner: Pruner) -> Pruner:
    """The method as a backend can serve it; as it is without one.

    Args:
        backend: A backend, or None or an empty mapping.
        pruner: The method.

    Raises:
        UserError: It is something else, such as settings of a backend that was not chosen.
    """
    if not backend:
        return pruner
    if not isinstance(backend, Backend):
        raise UserError(f"Settings of a backend need backend=vllm, which has them; got {backend}.")
    return backend.fitted(pruner)
