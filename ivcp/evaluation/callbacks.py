"""What happens beside the predictions: writing them, drawing a few, showing the progress."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ivcp.core.metric import ScoredAnswer
from ivcp.core.types import Sample
from ivcp.evaluation.data import Batch
from ivcp.evaluation.machine import peak_memory
from ivcp.evaluation.records import LineFile, Record, told_if_full, write_atomically

Draw = Callable[..., Image.Image]
"""Paints one image: called with the image, and `layout` (its visual tokens, areas in fractions of
it), `kept` (indices into the prompt) and `reasons`, `predicted` and `truth` (boxes in its pixels or
None), `title`."""


MEASURED = ("generating_seconds", "generated_tokens", "samples", "halvings")
"""What the module adds up in one process."""
PATIENCE = 100  # times what the metric took, until the progress line computes it again


class PredictionWriter(BasePredictionWriter):
    """Writes each batch's records when they are there, one file a process.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(write_interval="batch")
        self.folder = folder
        self.lines: LineFile  # open while predictions are made
        self.started = self.seconds = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Open this process's file; a process without batches gets no further than here."""
        self.folder = trainer.strategy.broadcast(self.folder)
        self.lines = LineFile(shard(self.folder, trainer.global_rank, trainer.world_size))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, now that the model is loaded."""
        self.started = time.perf_counter()

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Sequence[Record],
        batch_indices: Sequence[int] | None,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write through to the operating system."""
        self.lines.append(record.line() for record in prediction)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        extra = float(pl_module.extra_seconds)  # type: ignore[arg-type]
        self.seconds = time.perf_counter() - self.started - extra

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave this process's own measurements for the one that sums up."""
        self.lines.close()
        module: Any = pl_module
        model = module.model
        device = next(model.parameters()).device  # the module's own has gone to the CPU by now
        measured = {
            "seconds": self.seconds,
            **{name: getattr(module, name) for name in MEASURED},
            "peak_memory_bytes": peak_memory(module.devices),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "attention": model.config._attn_implementation,
            "rotary": rotary_of(module.family.decoder(model)),
        }
        write_atomically(self.folder / f"process-{trainer.global_rank}.json", json.dumps(measured))
        trainer.strategy.barrier()


def shard(folder: Path, rank: int, processes: int) -> Path:
    """The file into which a process writes its records."""
    return folder / ("predictions.jsonl" if processes == 1 else f"predictions.{rank}.jsonl")


def rotary_of(decoder: Any) -> dict[str, Any] | None:
    """Inverse frequencies and number of position axes of a decoder; None if it does not tell."""
    frequencies = getattr(getattr(decoder, "rotary_emb", None), "inv_freq", None)
    if frequencies is None:
        return None
    sections = "mrope_section" in (getattr(decoder.config, "rope_parameters", None) or {})
    return {"inverse_frequencies": frequencies.tolist(), "axes": 3 if sections else 1}


class Pictures(Callback):
    """Saves a PNG for each of the first samples of the dataset.

    Args:
        folder: Where to put them; made when needed.
        count: Number of samples.
        draw: Paints one.
    """

    def __init__(self, folder: Path, count: int, draw: Draw) -> None:
        self.folder, self.count, self.draw = folder, count, draw

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """All processes use the first one's folder."""
        self.folder = trainer.strategy.broadcast(self.folder)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the samples of this batch that are among the first."""
        records = {record.index: record for record in outputs}
        for index, sample in zip(batch.indices, batch.samples, strict=True):
            if index < self.count:
                name = "".join(c if c.isalnum() or c in "-_." else "_" for c in sample.id)[:80]
                for number, picture in enumerate(paint(self.draw, sample, records[index])):
                    suffix = f"_{number + 1}" if len(sample.images) > 1 else ""
                    path = self.folder / f"{index:03d}_{name}{suffix}.png"
                    with told_if_full(path):
                        self.folder.mkdir(parents=True, exist_ok=True)
                        picture.save(path)


def paint(draw: Draw, sample: Sample, record: Record) -> Iterator[Image.Image]:
    """One picture for each image of a sample; boxes belong to the last image."""
    title = f"{sample.question}: {' '.join(record.prediction.split())[:120]}"
    for number, (image, layout) in enumerate(zip(sample.images, record.images, strict=True)):
        tokens = set(layout.tokens.tolist())
        own = {token: "kept" for token in record.kept if token in tokens}
        for name, there in record.reasons.items():
            own |= {token: name for token in there if token in tokens}
        boxed = record.task == "grounding" and number == len(sample.images) - 1
        yield draw(
            image,
            layout=layout,
            kept=list(own),
            reasons=list(own.values()),
            predicted=record.parsed if boxed else None,
            truth=sample.answer if boxed else None,
            title=title,
        )


class ProgressLine(Callback):
    """A progress bar with samples a second and the metric so far, of the first process's share."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.started = self.due = 0.0
        self.note = ""
        self.answers: list[ScoredAnswer] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        if not trainer.is_global_zero:
            return
        loader: Any = trainer.predict_dataloaders
        total = sum(map(len, loader.dataset.plan))
        self.progress = Progress(
            TextColumn("evaluating"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self.task = self.progress.add_task("", total=total, note="")
        self.progress.start()
        self.started = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance by the batch's samples."""
        if self.progress is None or self.task is None:
            return
        self.progress.advance(self.task, len(outputs))
        self.answers += [record.scored() for record in outputs]
        now = time.perf_counter()
        task = self.progress.tasks[0]
        if now >= self.due or task.finished:  # a break-down of thousands of answers takes a while
            self.note = _primary(pl_module.metric, self.answers)
            self.due = now + PATIENCE * (time.perf_counter() - now)
        seconds = now - self.started - float(pl_module.extra_seconds)  # type: ignore[arg-type]
        rate = task.completed / max(seconds, 1e-9)
        self.progress.update(self.task, note=f"{rate:.1f} samples/s  {self.note}")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the finished bar on screen."""
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the cursor back before the error is told."""
        self._stop()

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def _primary(metric: Any, answers: Sequence[ScoredAnswer]) -> str:
    value = metric.values(answers)[metric.primary_metric]
    digits = 3 if metric.unit(metric.primary_metric) == "%" else 1
    return f"{metric.primary_metric} {value:.{digits}f}"
