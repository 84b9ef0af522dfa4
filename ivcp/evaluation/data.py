"""From a dataset to batches that a model can generate from, each assigned to one process."""

from __future__ import annotations

import heapq
import multiprocessing
import sys
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import lightning
import torch
from torch.utils.data import DataLoader, Dataset

from ivcp.core.errors import UserError
from ivcp.core.family import Encoded, ModelFamily
from ivcp.core.pruner import Pruner
from ivcp.core.resizing import encode_for
from ivcp.core.types import BrokenSample, Sample
from ivcp.evaluation.process import LoaderProcess

Numbers = tuple[int, ...]
"""Indices of the samples of a batch into the dataset."""

TEXT_TOKENS = 50
"""Tokens that a question and its answer are expected to have."""

ORDINARY = (640, 480)
"""Width and height that an image is expected to have of which nothing is known."""

LONGEST_REASON = 500  # characters of what is recorded about a failed sample


class SampleSource(Protocol):
    """What a dataset must offer.

    It may also have `notes` (sentences for the run's record), `identity` (a text that changes with
    its content), `sizes(index)` (width and height of each of a sample's images, without decoding
    them; empty if unknown), `sample_id(index)` (a sample's id, likewise) and `has_videos` (whether
    samples hold videos, so that a model of images is refused before its weights are read).

    Any exception of one sample is that sample's failure, and counts as a wrong answer.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample.

        Raises:
            BrokenSample: It cannot be run, but what it is about is known.
        """


@dataclass(frozen=True)
class Item:
    """A sample of a dataset, or what is known of one that cannot be run.

    Attributes:
        index: Index into the dataset.
        sample: The sample with decoded images; without images and videos if it failed, None if
            nothing is known of it.
        failed: Why it cannot be run; empty if it can.
    """

    index: int
    sample: Sample | None
    failed: str = ""


@dataclass(frozen=True)
class Batch:
    """A batch as the data loader hands it over.

    Attributes:
        indices: Indices of the samples into the dataset.
        samples: Those that could be read.
        encoded: Their model inputs; None if none could be read.
        failures: The others.
    """

    indices: tuple[int, ...]
    samples: tuple[Sample, ...]
    encoded: Encoded | None
    failures: tuple[Item, ...]

    @property
    def ready(self) -> Encoded:
        """The model inputs of a batch that has some."""
        if self.encoded is None:
            raise RuntimeError("no sample of this batch could be read")
        return self.encoded

    def to(self, device: torch.device, **options: Any) -> Batch:
        """The batch with its inputs on a device."""
        if self.encoded is None:
            return self
        inputs = {name: value.to(device) for name, value in self.encoded.inputs.items()}
        return replace(self, encoded=replace(self.encoded, inputs=inputs))


class ReadableItems(Dataset[Item]):
    """A dataset cut to `limit` samples in which a bad sample is an item, not an exception.

    Args:
        source: The dataset.
        limit: Most samples to take; None takes all.

    Raises:
        UserError: Nothing is left.
    """

    def __init__(self, source: SampleSource, limit: int | None) -> None:
        self.source = source
        self.length = len(source) if limit is None else min(limit, len(source))
        if self.length == 0:
            raise UserError(
                "The dataset is empty: it has no sample to evaluate. Check its split, size or path."
            )

    def __len__(self) -> int:
        return self.length

    def cost(self, index: int, family: ModelFamily, processor: Any) -> float:
        """Tokens that a sample is expected to have, without decoding its images.

        Args:
            index: Index into the dataset.
            family: Counts visual tokens.
            processor: What the family's `load` gave.
        """
        read_sizes = getattr(self.source, "sizes", None)
        sizes = read_sizes(index) if read_sizes is not None else ()
        return TEXT_TOKENS + family.expected_tokens(processor, sizes or (ORDINARY,))

    def sample_id(self, index: int) -> str:
        """The id of a sample; that of an item without one, if it cannot be read."""
        if (read := getattr(self.source, "sample_id", None)) is not None:
            return str(read(index))
        sample = self[index].sample
        return unreadable_id(index) if sample is None else sample.id

    def __getitem__(self, index: int) -> Item:
        if not 0 <= index < self.length:
            raise IndexError(f"Expected an index from 0 to {self.length - 1}; got {index}.")
        sample = None
        try:
            sample = self.source[index]
            for image in sample.images:
                image.load()  # PIL decodes late; a truncated file shows itself only here
        except BrokenSample as error:
            return Item(index, error.sample, _reason(error.__cause__ or error))
        except Exception as error:
            return Item(index, sample and replace(sample, images=(), videos=()), _reason(error))
        return Item(index, sample)


def collate(
    family: ModelFamily, processor: Any, items: Sequence[Item], pruner: Pruner | None = None
) -> Batch:
    """Encode the readable items of a batch; a sample that cannot be encoded becomes a failure."""
    readable = [(item.index, item.sample) for item in items if item.sample and not item.failed]
    indices, samples = [index for index, _ in readable], [sample for _, sample in readable]
    try:
        encoded = encode_for(pruner, family, processor, samples) if samples else None
    except Exception as error:
        if len(items) == 1:
            sample = replace(samples[0], images=(), videos=())
            return Batch((), (), None, (Item(indices[0], sample, _reason(error)),))
        parts = [collate(family, processor, [item], pruner) for item in items]
        bad = {failure.index: failure for part in parts for failure in part.failures}
        return collate(family, processor, [bad.get(item.index, item) for item in items], pruner)
    failures = tuple(item for item in items if item.failed)
    return Batch(tuple(indices), tuple(samples), encoded, failures)


class Batches(Dataset[Batch]):
    """Whole batches, read, decoded and encoded.

    Args:
        items: The samples.
        family: Encodes them.
        processor: What the family's `load` gave.
        plan: Indices of the samples of each batch.
        pruner: The method, which may want images of other sizes.
    """

    def __init__(
        self,
        items: ReadableItems,
        family: ModelFamily,
        processor: Any,
        plan: Sequence[Numbers],
        pruner: Pruner | None = None,
    ) -> None:
        self.items, self.family, self.processor = items, family, processor
        self.plan, self.pruner = plan, pruner

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, batch: int) -> Batch:
        items = [self.items[number] for number in self.plan[batch]]
        return collate(self.family, self.processor, items, self.pruner)


class AssignedBatches(lightning.LightningDataModule):
    """Gives each process its batches, balanced by what they are expected to cost.

    Args:
        items: The samples.
        plan: Indices of the samples of each batch; that of the first process holds for all.
        family: Encodes them, with the processor of the module that the trainer runs.
        workers: Processes that load data, for each process that evaluates.
        timeout: Seconds that one of them may take for a batch; 0 for as long as it takes.
        pruner: As in `Batches`.
    """

    def __init__(
        self,
        items: ReadableItems,
        plan: Sequence[Numbers],
        family: ModelFamily,
        workers: int,
        timeout: int = 0,
        pruner: Pruner | None = None,
    ) -> None:
        super().__init__()
        self.items, self.plan, self.family, self.pruner = items, plan, family, pruner
        self.workers, self.timeout = workers, timeout
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The batches of the process that calls."""
        trainer: Any = self.trainer
        plan = trainer.strategy.broadcast(self.plan)  # the first process knows what is done
        processor = trainer.lightning_module.processor
        costs = [sum(self.items.cost(n, self.family, processor) for n in batch) for batch in plan]
        numbers = assign(costs, trainer.world_size)[trainer.global_rank]
        assigned = [plan[number] for number in numbers]
        batches = Batches(self.items, self.family, processor, assigned, self.pruner)
        loaders: dict[str, Any] = {}
        workers = min(self.workers, len(batches))  # others would have nothing to load
        if workers:
            loaders = {
                "timeout": self.timeout,
                "worker_init_fn": LoaderProcess(),
                "multiprocessing_context": _context(),
            }
        return DataLoader(
            batches, batch_size=None, num_workers=workers, collate_fn=_as_it_is, **loaders
        )


def _context() -> Any:
    """How loader processes start: by a fork where that is usual, whatever a launcher has set."""
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def _as_it_is(batch: Any) -> Any:
    return batch


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST_REASON]


def unreadable_id(index: int) -> str:
    """The id of a sample of which nothing could be read."""
    return f"index-{index}"


def cut(samples: int, batch_size: int) -> list[Numbers]:
    """Batches of samples in the order of the data set; only the last may be smaller.

    They do not depend on the number of processes, so neither do padding and rounding.

    >>> cut(5, 2)
    [(0, 1), (2, 3), (4,)]
    """
    numbers = range(samples)
    return [tuple(numbers[start : start + batch_size]) for start in range(0, samples, batch_size)]


def unfinished(batches: Sequence[Numbers], done: Container[int]) -> list[Numbers]:
    """Batches of which not all samples are done; they are evaluated anew as a whole."""
    return [batch for batch in batches if not all(number in done for number in batch)]


def assign(costs: Sequence[float], processes: int) -> list[list[int]]:
    """Numbers of the batches that each process evaluates, ascending; every number once.

    The costliest batch goes first, each to the process that has least so far. The process that has
    the first batch is the first one.

    Args:
        costs: What each batch is expected to cost, in any unit.
        processes: Number of processes, at least 1.

    >>> assign([1, 1, 5, 2, 1], 2)
    [[0, 1, 3, 4], [2]]
    """
    loads = [(0.0, process) for process in range(processes)]
    assigned: list[list[int]] = [[] for _ in range(processes)]
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        load, process = heapq.heappop(loads)
        assigned[process].append(number)
        heapq.heappush(loads, (load + costs[number], process))
    return sorted(map(sorted, assigned), key=lambda numbers: numbers[:1] or [len(costs)])
