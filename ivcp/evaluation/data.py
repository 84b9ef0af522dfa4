"""From a dataset to batches that a model can generate from; unreadable samples become failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import lightning
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from ivcp.core.errors import UserError
from ivcp.core.family import Encoded, ModelFamily
from ivcp.core.types import BrokenSample, Sample
from ivcp.evaluation.plan import Numbers, share

TEXT_TOKENS = 50
"""Tokens that a question and its answer are expected to have."""

ORDINARY = (640, 480)
"""Width and height that an image is expected to have of which nothing is known."""

UNREADABLE = (OSError, UserError, Image.DecompressionBombError)


class SampleSource(Protocol):
    """What a dataset must offer.

    It may also have `notes` (sentences for the run's record), `identity` (a text that changes with
    its content) and `sizes(index)` (width and height of each of a sample's images, without decoding
    them; empty if unknown).
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample.

        Raises:
            BrokenSample: It cannot be asked, but what it is about is known.
            OSError: Not even that.
            UserError: Likewise.
        """


@dataclass(frozen=True)
class Item:
    """One place of a dataset: a sample, or what is known of one that cannot be asked.

    Attributes:
        index: Index into the dataset.
        sample: The sample with decoded images; without images if it failed, None if nothing is
            known of it.
        failed: Why it cannot be asked; empty if it can.
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
        sizes = getattr(self.source, "sizes", None)
        known = sizes(index) if sizes is not None else ()
        return TEXT_TOKENS + family.expected_tokens(processor, known or (ORDINARY,))

    def __getitem__(self, index: int) -> Item:
        sample = None
        try:
            sample = self.source[index]
            for image in sample.images:
                image.load()  # PIL decodes late; a truncated file shows itself only here
        except BrokenSample as error:
            return Item(index, error.sample, _reason(error.__cause__ or error))
        except UNREADABLE as error:
            return Item(index, sample and replace(sample, images=()), _reason(error))
        return Item(index, sample)


def collate(family: ModelFamily, processor: Any, items: Sequence[Item]) -> Batch:
    """Encode the readable items of a batch; a sample that cannot be encoded becomes a failure."""
    asked = [(item.index, item.sample) for item in items if item.sample and not item.failed]
    indices, samples = [index for index, _ in asked], [sample for _, sample in asked]
    try:
        encoded = family.encode(processor, samples) if samples else None
    except UNREADABLE as error:
        if len(items) == 1:
            known = replace(samples[0], images=())
            return Batch((), (), None, (Item(indices[0], known, _reason(error)),))
        parts = [collate(family, processor, [item]) for item in items]
        bad = {failure.index: failure for part in parts for failure in part.failures}
        return collate(family, processor, [bad.get(item.index, item) for item in items])
    failures = tuple(item for item in items if item.failed)
    return Batch(tuple(indices), tuple(samples), encoded, failures)


class Batches(Dataset[Batch]):
    """Whole batches, read, decoded and encoded.

    Args:
        items: The samples.
        family: Encodes them.
        processor: What the family's `load` gave.
        plan: Indices of the samples of each batch.
    """

    def __init__(
        self, items: ReadableItems, family: ModelFamily, processor: Any, plan: Sequence[Numbers]
    ) -> None:
        self.items, self.family, self.processor = items, family, processor
        self.plan = plan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, place: int) -> Batch:
        return collate(self.family, self.processor, [self.items[n] for n in self.plan[place]])


class SharedBatches(lightning.LightningDataModule):
    """Gives each process its share of the batches, balanced by what they are expected to cost.

    Args:
        items: The samples.
        plan: Indices of the samples of each batch; that of the first process holds for all.
        family: Encodes them, with the processor of the module that the trainer runs.
        workers: Processes that load data, for each process that evaluates.
    """

    def __init__(
        self, items: ReadableItems, plan: Sequence[Numbers], family: ModelFamily, workers: int
    ) -> None:
        super().__init__()
        self.items, self.plan, self.family, self.workers = items, plan, family, workers
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The share of the process that calls."""
        trainer: Any = self.trainer
        plan = trainer.strategy.broadcast(self.plan)  # the first knows what is done
        processor = trainer.lightning_module.processor
        costs = [sum(self.items.cost(n, self.family, processor) for n in batch) for batch in plan]
        own = [plan[place] for place in share(costs, trainer.world_size)[trainer.global_rank]]
        part = Batches(self.items, self.family, processor, own)
        return DataLoader(part, batch_size=None, num_workers=self.workers, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
