"""What forward hooks see of a generation: times of its parts, and whether logits are finite."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Phases:
    """Seconds of one call of `generate`, whole batch.

    Attributes:
        vision: In the vision tower.
        decoder: In the decoder layers during prefill, pruning overhead included.
        first_token: From the start to the first token's logits.
        total: From start to end.
    """

    vision: float = 0.0
    decoder: float = 0.0
    first_token: float = 0.0
    total: float = 0.0

    @property
    def decoding(self) -> float:
        """Everything behind the first token's logits."""
        return self.total - self.first_token


@contextmanager
def timed_phases(model: nn.Module, vision: nn.Module, decoder: nn.Module) -> Iterator[Phases]:
    """Time one generation that runs inside the block; all values are there at its end.

    On CUDA the model's devices are waited for at the borders of each phase, in prefill and at the
    end only, so that decoding keeps its pace.
    """
    devices = {parameter.device for parameter in model.parameters()}
    phases = Phases()
    begun: dict[str, float] = {}

    def now() -> float:
        for device in devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return time.perf_counter()

    def begin(*_: Any, name: str) -> None:
        if not phases.first_token:
            begun[name] = now()

    def end(*_: Any, name: str) -> None:
        if not phases.first_token:
            setattr(phases, name, getattr(phases, name) + now() - begun[name])

    def first(*_: Any) -> None:
        if not phases.first_token:
            phases.first_token = now() - start

    handles = [model.register_forward_hook(first)]
    for name, module in (("vision", vision), ("decoder", decoder)):
        handles.append(module.register_forward_pre_hook(lambda *_, n=name: begin(name=n)))
        handles.append(module.register_forward_hook(lambda *_, n=name: end(name=n)))
    start = now()
    try:
        yield phases
    finally:
        for handle in handles:
            handle.remove()
    phases.total = now() - start


@contextmanager
def finite_logits(model: nn.Module, samples: int) -> Iterator[list[Tensor]]:
    """Note at each step of one generation whether the logits of each sample are finite.

    The tensors stay on the device, so that decoding does not wait for the host. Negative infinity
    is a logit like others: that of a token which never comes.

    Args:
        model: The model that generates.
        samples: Number of samples, `B`; beams of a sample count together.

    Yields:
        (B,) for each step, once the block has ended.
    """
    steps: list[Tensor] = []

    def note(_module: Any, _arguments: Any, output: Any) -> None:
        steps.append((output.logits[:, -1] < torch.inf).reshape(samples, -1).all(-1))

    handle = model.register_forward_hook(note)
    try:
        yield steps
    finally:
        handle.remove()
