"""Methods that a session puts wrappers before: `generate` and the image encoder."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ivcp.core.errors import UserError
from ivcp.core.tower import VisionTower
from ivcp.engine.checks import check_generation
from ivcp.engine.encoding import Encoding
from ivcp.engine.prefill import Prefill
from ivcp.engine.prompt import Chunk


class Running(threading.local):
    """What the hooks know of the forward pass that a thread is in.

    Attributes:
        encodings: Calls of the image encoder that no forward pass has taken yet.
        encoding: The one that is running.
        entered: What has entered, between the model's entry and its language model.
        prefill: The last prefill of the pass, until the model ends.
        labels: What the model was called with, for after the pass.
        kept_logits: Likewise.
    """

    def __init__(self) -> None:
        self.encodings: list[Encoding] = []
        self.encoding: Encoding | None = None
        self.entered: Chunk | None = None
        self.prefill: Prefill | None = None
        self.labels: Tensor | None = None
        self.kept_logits: int | Tensor = 0


def guarded_generate(method: Callable[..., Any], *, running: Running) -> Callable[..., Any]:
    """`generate`, which is asked first whether it would prune something else."""

    @functools.wraps(method)
    def generate(*args: Any, **kwargs: Any) -> Any:
        default = getattr(getattr(method, "__self__", None), "generation_config", None)
        check_generation({**_set(default), **_set(kwargs.get("generation_config")), **kwargs})
        running.encodings.clear()
        return method(*args, **kwargs)

    return generate


def guarded_settings(method: Callable[..., Any]) -> Callable[..., Any]:
    """What `generate` will follow, also where it was bound before the session."""

    @functools.wraps(method)
    def prepare(*args: Any, **kwargs: Any) -> Any:
        config, rest = found = method(*args, **kwargs)
        check_generation({**_set(config), **rest})
        return found

    return prepare


def noted_encoder(
    method: Callable[..., Any], *, kind: str, tower: VisionTower | None, running: Running
) -> Callable[..., Any]:
    """An image encoder, with a note of its call: `generate` hands it to no forward pass."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def encode(*args: Any, **kwargs: Any) -> Any:
        if running.encoding is not None:  # some encode videos as images
            return method(*args, **kwargs)
        bound = dict(signature.bind_partial(*args, **kwargs).arguments)
        bound = {**bound.pop("kwargs", {}), **bound}
        running.encoding = Encoding(kind, bound, tower=tower)
        try:
            result = method(*args, **kwargs)
            running.encoding.returned(result)
            if running.entered is None:  # no forward pass is about to take them
                running.encodings = [e for e in running.encodings if not e.forgotten]
            running.encodings.append(running.encoding)
            return result
        finally:
            running.encoding = None

    return encode


def guarded_numbering(method: Callable[..., Any]) -> Callable[..., Any]:
    """M-RoPE's numbering, which runs out of images where the inputs hold too few."""

    @functools.wraps(method)
    def number(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except StopIteration as error:
            raise UserError(
                "The prompts hold more images than the inputs: give one image for each placeholder."
            ) from error

    return number


def _set(config: Any) -> Mapping[str, Any]:
    """What a generation config sets."""
    if config is None:
        return {}
    return {name: value for name, value in vars(config).items() if value is not None}
