"""The devices that a model runs on: their names, and how much memory was needed."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

import torch


def device_name(device: torch.device) -> str:
    """Name of the GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


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


def machine_name() -> str:
    """Operating system and processor."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # the file is Linux's; it names the model
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    return f"{platform.system()}, {processor}"
