"""Which of a machine's GPUs are those of a process."""

from __future__ import annotations

from collections.abc import Sequence

import lightning
import torch


def first_gpus(gpus: int, processes: int) -> list[int]:
    """The first GPU of each process, where each has as many, and the last one what is left over.

    >>> first_gpus(8, 4), first_gpus(8, 3)
    ([0, 2, 4, 6], [0, 2, 4])
    """
    return [number * (gpus // processes) for number in range(processes)]


def own_gpus(trainer: lightning.Trainer) -> Sequence[int] | None:
    """The GPUs of this process: its share of the machine's, or its own one of a list.

    None for a single process, which has them all, and on a CPU.
    """
    first, number = trainer.strategy.root_device.index, trainer.num_devices
    if first is None:
        return None
    firsts = first_gpus(gpus := torch.cuda.device_count(), number)
    if trainer.device_ids != firsts:
        return [first]
    after = [other for other in firsts if other > first]
    return None if number == 1 else range(first, min(after, default=gpus))
