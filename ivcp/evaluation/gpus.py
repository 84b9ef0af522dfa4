"""The devices of a process: which GPUs are its own, and how much memory it needed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

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


def forget_peak(devices: Iterable[torch.device]) -> None:
    """Begin anew, so that the peak is not that of an earlier run of this process."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)


def peak_memory(devices: Iterable[torch.device]) -> int:
    """Bytes at the peak: of the CUDA allocator on all the devices, else of the whole process."""
    if gpus := [device for device in devices if device.type == "cuda"]:
        return sum(map(torch.cuda.max_memory_allocated, gpus))
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
