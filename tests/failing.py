"""A model family that stops one of several processes."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ivcp.models.processor import Processor
from ivcp.models.qwen25vl import Qwen25VL


@dataclass(frozen=True, kw_only=True)
class Failing(Qwen25VL):
    """Stops at the fifth batch.

    Attributes:
        rank: The process that stops.
        killed: Whether it is killed; else it raises an error.
        batches: Those that it has answered.
    """

    rank: int = 1
    killed: bool = False
    batches: list[int] = field(default_factory=list, compare=False)

    def decode(self, processor: Processor, tokens: Tensor) -> list[str]:
        self.batches.append(len(tokens))
        if len(self.batches) == 5 and torch.distributed.get_rank() == self.rank:
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ZeroDivisionError(f"process {self.rank} stops here")
        return super().decode(processor, tokens)
