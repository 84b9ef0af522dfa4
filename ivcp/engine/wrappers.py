"""Wrappers that a session puts before methods of the model: `generate` and the image encoder."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from ivcp.core.errors import UserError
from ivcp.core.tower import VisionTower
from ivcp.engine.checks import check_pruned_generation
from ivcp.engine.encoder_call import EncoderCall
from ivcp.engine.prefill import Prefill
from ivcp.engine.prompt import Chunk


class ThreadState(threading.local):
    """The forward pass that a thread is in, from the image encoder to the language model.

    Attributes:
        encoder_calls: Calls of the image encoder that belong to no forward pass yet.
        encoder_call: The call that is running.
        chunk: What has entered the model, until its language model is called.
        prefill: The prefill of the running forward pass, until the model ends.
        labels: Labels that the model was called with, for the loss at its end.
        kept_logits: `logits_to_keep` of the call.
        ending: Static caches that end with the running `generate`; None outside of one.
    """

    def __init__(self) -> None:
        self.encoder_calls: list[EncoderCall] = []
        self.encoder_call: EncoderCall | None = None
        self.chunk: Chunk | None = None
        self.prefill: Prefill | None = None
        self.labels: Tensor | None = None
        self.kept_logits: int | Tensor = 0
        self.ending: list[Cache] | None = None


def guarded_generate(method: Callable[..., Any], *, state: ThreadState) -> Callable[..., Any]:
    """`generate` that refuses settings under which it would prune something else."""

    @functools.wraps(method)
    def generate(*args: Any, **kwargs: Any) -> Any:
        default = getattr(getattr(method, "__self__", None), "generation_config", None)
        config = kwargs.get("generation_config")
        check_pruned_generation({**_settings(default), **_settings(config), **kwargs})
        state.encoder_calls.clear()  # `generate` encodes its images itself
        outer, state.ending = state.ending, []
        try:
            return method(*args, **kwargs)
        finally:
            for layer in (layer for cache in state.ending for layer in cache.layers):
                layer.needs_session = True
            state.ending = outer

    return generate


def guarded_settings(method: Callable[..., Any]) -> Callable[..., Any]:
    """`_prepare_generation_config` with the same check.

    A `generate` that was bound before the session passes through here, too.
    """

    @functools.wraps(method)
    def prepare(*args: Any, **kwargs: Any) -> Any:
        config, rest = settings = method(*args, **kwargs)
        check_pruned_generation({**_settings(config), **rest})
        return settings

    return prepare


def recorded_encoder(
    method: Callable[..., Any], *, kind: str, tower: VisionTower | None, state: ThreadState
) -> Callable[..., Any]:
    """An image encoder whose calls are recorded.

    `generate` encodes images before its first forward pass and passes on the features alone, so the
    arguments (grids, sizes) have to be recorded here.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def encode(*args: Any, **kwargs: Any) -> Any:
        if state.encoder_call is not None:  # some families encode videos by the image method
            return method(*args, **kwargs)
        bound = dict(signature.bind_partial(*args, **kwargs).arguments)
        bound = {**bound.pop("kwargs", {}), **bound}
        state.encoder_call = call = EncoderCall(kind, bound, tower=tower)
        try:
            result = method(*args, **kwargs)
            call.set_result(result)
            if state.chunk is None:  # outside of a forward pass: features may never be used
                state.encoder_calls = [c for c in state.encoder_calls if not c.unreachable]
            state.encoder_calls.append(call)
            return result
        finally:
            state.encoder_call = None

    return encode


def guarded_numbering(method: Callable[..., Any]) -> Callable[..., Any]:
    """M-RoPE's numbering, whose `StopIteration` means that the inputs hold too few images."""

    @functools.wraps(method)
    def number(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except StopIteration as error:
            raise UserError(
                "The prompts hold more images than the inputs: give one image for each placeholder."
            ) from error

    return number


def _settings(config: Any) -> Mapping[str, Any]:
    """The settings of a generation config that are not None."""
    if config is None:
        return {}
    return {name: value for name, value in vars(config).items() if value is not None}
