"""Runs a metric in two gloo processes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

WORLD = 2


def _count_share(rank: int, folder: str, cases: list[tuple[type[Any], list[Any]]]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD
    )
    values = []
    for metric_class, verdicts in cases:
        metric = metric_class()
        cut = 1 + len(verdicts) // 3  # unequal shares
        metric.update(verdicts[:cut] if rank == 0 else verdicts[cut:])
        values.append(metric.compute())
    torch.save(values, Path(folder) / f"values{rank}.pt")
    torch.distributed.destroy_process_group()


def in_two_processes(cases: list[tuple[type[Any], list[Any]]]) -> list[list[Any]]:
    """What each process computes for each (metric class, verdicts), unequal shares given."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_count_share, (folder, cases), nprocs=WORLD)
        return [torch.load(Path(folder) / f"values{rank}.pt") for rank in range(WORLD)]
