"""Everything that a run is made of, checked and cut into batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning

from ivcp.core.backend import Backend
from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.judge import Judge
from ivcp.core.metric import AnswerMetric
from ivcp.core.pruner import Pruner
from ivcp.engine.static_cache import check_static_method
from ivcp.evaluation.callbacks import PredictionWriter, ProgressLine
from ivcp.evaluation.data import Numbers, ReadableItems, SampleSource, cut
from ivcp.evaluation.overlays import Draw
from ivcp.evaluation.process import StopsBetweenBatches
from ivcp.evaluation.settings import Settings
from ivcp.evaluation.trainer import EndsWithFirst, make_trainer, on_gpus
from ivcp.results.load import read_baseline
from ivcp.results.run_folder import RunFolder

MOST_ON_GPU, MOST_ON_CPU, MOST_SERVED = 64, 8, 64
"""Samples of a batch that batch_size=auto tries first, or hands to a server."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a configuration names.

    Attributes:
        pruner: The method.
        model: The family that loads the weights, here, and reads the answers.
        dataset: The samples.
        metric: Scores the answers.
        judge: Scores answers that the metric's rules cannot; None leaves it to the rules.
        backend: A server that answers; None for a model of transformers in the run's processes.
        draw: Draws the kept tokens of an image.
        names: Names of "model", "pruner" and "dataset" for the record, and perhaps a "variant".
        config: The whole resolved configuration, for the record; evaluation itself follows the
            keys that `Settings` has.
        overrides: What was typed, for the record.
    """

    pruner: Pruner
    model: ModelFamily
    dataset: SampleSource
    metric: AnswerMetric
    judge: Judge | None
    backend: Backend | None
    draw: Draw
    names: Mapping[str, str]
    config: dict[str, Any]
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A run that can start.

    Attributes:
        parts: What it is made of.
        settings: How it goes.
        items: The samples that it takes.
        batches: Indices of the samples of each batch.
        folder: Where its files are.
        trainer: Runs its processes.
        stop: Listens to signals.
        quiet: Whether progress and table stay away.
    """

    parts: Parts
    settings: Settings
    items: ReadableItems
    batches: Sequence[Numbers]
    folder: RunFolder
    trainer: lightning.Trainer
    stop: StopsBetweenBatches
    quiet: bool


def prepare(
    parts: Parts,
    trainer: Callable[..., lightning.Trainer],
    folder: RunFolder,
    stop: StopsBetweenBatches,
    sweep: bool,
    quiet: bool,
) -> Job:
    """Check the settings, make the trainer, and cut the dataset into batches.

    Args:
        parts: What the run is made of.
        trainer: Makes the trainer when given `callbacks` and `logger`.
        folder: The run's.
        stop: Listens to signals.
        sweep: Whether this is one of several runs of a process.
        quiet: As in `Job`.

    Raises:
        UserError: A setting is wrong, the dataset is empty or of another task than the metric, or
            the trainer cannot be used.
    """
    settings = Settings.of(parts.config)
    if settings.generation.get("cache_implementation") == "static":
        check_static_method(parts.pruner)
    if parts.backend is not None:
        parts.backend.check(parts.model, parts.pruner, settings.generation)
    lightning.seed_everything(settings.seed, verbose=False)
    if settings.limit is not None and hasattr(parts.dataset, "tasks"):
        raise UserError(
            "limit would cut off whole tasks of a group; use dataset.limit_each="
            f"{settings.limit} instead."
        )
    check_metric(parts.dataset, parts.metric)
    if settings.pictures and not callable(parts.draw):
        raise UserError(
            f"draw must be a function, such as draw_overlay, or pictures=0; got {parts.draw!r}."
        )
    items = ReadableItems(parts.dataset, settings.limit)
    if settings.baseline not in (None, "auto"):
        read_baseline(settings.baseline)
    progress = [] if quiet else [ProgressLine()]
    callbacks = [PredictionWriter(folder.path), EndsWithFirst(), *progress, stop]
    servers = 0 if parts.backend is None else parts.backend.copies
    spread = getattr(parts.model, "device_map", None)
    made = make_trainer(trainer, callbacks, sweep, spread, servers)
    size = settings.batch_size
    if size == "auto":
        size = MOST_SERVED if servers else MOST_ON_GPU if on_gpus(made) else MOST_ON_CPU
    return Job(parts, settings, items, cut(len(items), size), folder, made, stop, quiet)


def check_metric(dataset: SampleSource, metric: AnswerMetric) -> None:
    """Refuse a metric for answers of another kind than the dataset has.

    Raises:
        UserError: It is no metric, or it cannot score the dataset's task.
    """
    if not isinstance(metric, AnswerMetric):
        raise UserError(f"metric must be an instance of an AnswerMetric; got {metric!r}.")
    task = getattr(dataset, "task", None)
    if task is not None and metric.scored_tasks and task not in metric.scored_tasks:
        raise UserError(
            f"{type(metric).__name__} scores answers of the task {' or '.join(metric.scored_tasks)}"
            f"; those of the dataset are of the task {task}: choose another dataset= or metric."
        )
