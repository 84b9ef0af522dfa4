"""What happens beside the predictions: writing them, and showing the progress."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ivcp.core.metric import AnswerMetric, ScoredAnswer
from ivcp.evaluation.data import Batch
from ivcp.results.files import LineFile, write_atomically
from ivcp.results.prediction import Prediction

COUNTED = ("generating_seconds", "generated_tokens", "samples", "halvings")
"""What the module adds up in one process."""
REST = 100  # times what the metric took, until the progress line computes it again


class PredictionWriter(BasePredictionWriter):
    """Writes each batch's predictions when they are there, one file a process.

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
        prediction: Sequence[Prediction],
        batch_indices: Sequence[int] | None,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write through to the operating system."""
        self.lines.append(item.line() for item in prediction)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        extra = float(pl_module.extra_seconds)  # type: ignore[arg-type]
        self.seconds = time.perf_counter() - self.started - extra

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave this process's own measurements for the one that sums up."""
        self.lines.close()
        module: Any = pl_module
        counted = {name: getattr(module, name) for name in COUNTED}
        measured = {"seconds": self.seconds, **counted, **module.machine()}
        write_atomically(measurements(self.folder, trainer.global_rank), json.dumps(measured))
        trainer.strategy.barrier()


def shard(folder: Path, rank: int, processes: int) -> Path:
    """The file into which a process writes its predictions."""
    return folder / ("predictions.jsonl" if processes == 1 else f"predictions.{rank}.jsonl")


def measurements(folder: Path, rank: int) -> Path:
    """The file into which a process writes what it measured."""
    return folder / f"process-{rank}.json"


class ProgressLine(Callback):
    """A progress bar of the first process: its samples, samples a second, the metric so far."""

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
        self.answers += [prediction.scored() for prediction in outputs]
        now = time.perf_counter()
        task = self.progress.tasks[0]
        if now >= self.due or task.finished:  # a break-down of thousands of answers takes a while
            self.note = primary_text(pl_module.metric, self.answers)  # type: ignore[arg-type]
            self.due = now + REST * (time.perf_counter() - now)
        seconds = now - self.started - float(pl_module.extra_seconds)  # type: ignore[arg-type]
        rate = task.completed / max(seconds, 1e-9)
        self.progress.update(self.task, note=f"{rate:.1f} samples/s  {self.note}")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the finished bar on screen."""
        self._stop()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the cursor back before the error is printed."""
        self._stop()

    def _stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def primary_text(metric: AnswerMetric, answers: Sequence[ScoredAnswer]) -> str:
    """The primary metric of some answers, for reading."""
    value = metric.values(answers)[metric.primary_metric]
    digits = 3 if metric.unit(metric.primary_metric) == "%" else 1
    return f"{metric.primary_metric} {value:.{digits}f}"
