"""From parts to results: evaluate one pruner on one dataset and write everything down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.multiprocessing.spawn import ProcessRaisedException

from ivcp.core.comparable import content
from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.judge import Judge
from ivcp.core.metric import AnswerMetric
from ivcp.core.pruner import Pruner
from ivcp.evaluation.baseline import differences, find_baseline
from ivcp.evaluation.callbacks import Draw, Pictures, PredictionWriter, ProgressLine, shard
from ivcp.evaluation.data import ReadableItems, SampleSource, SharedBatches
from ivcp.evaluation.identity import identity_of
from ivcp.evaluation.judging import judge_records
from ivcp.evaluation.machine import first_gpus
from ivcp.evaluation.module import Evaluation
from ivcp.evaluation.noise import silence
from ivcp.evaluation.outcome import outcome, resumed
from ivcp.evaluation.plan import cut, unfinished
from ivcp.evaluation.records import Record, write_atomically
from ivcp.evaluation.resume import (
    EARLIER,
    FINISHED,
    alone_in,
    answers,
    carry_over,
    copied,
    declare,
    earlier_run,
    is_finished,
    read_report,
    replaced,
)
from ivcp.evaluation.screen import show_result
from ivcp.evaluation.settings import Settings
from ivcp.evaluation.tracking import track

MOST_ON_GPU, MOST_ON_CPU = 64, 8
"""Samples of a batch that batch_size=auto tries first."""

SHARING = ("auto", "balanced", "sequential")
"""Values of `device_map` that can do with a part of a machine's GPUs."""


def evaluate(
    *,
    pruner: Pruner,
    model: ModelFamily,
    dataset: SampleSource,
    metric: AnswerMetric,
    trainer: Callable[..., lightning.Trainer],
    logger: Callable[..., Logger] | Mapping[str, Any] | None,
    draw: Draw,
    names: dict[str, str],
    config: dict[str, Any],
    folder: str,
    judge: Judge | Mapping[str, Any] | None = None,
    sweep: bool = False,
) -> float:
    """Evaluate, write `predictions.jsonl` and `metrics.json`, log, and show the table.

    Args:
        pruner: The method.
        model: The family that loads the weights, here, and reads the answers.
        dataset: The samples.
        metric: Judges the answers.
        trainer: Makes the trainer when given `callbacks` and `logger`.
        logger: Makes the experiment logger when given `save_dir`; None or empty logs nowhere.
        draw: Paints the kept tokens of a sample.
        names: Names of "model", "pruner" and "dataset" for the record.
        config: The whole resolved configuration, for the record; evaluation itself follows the
            keys that `Settings` has.
        folder: The run's folder, which exists.
        judge: Reads answers that the metric's rules cannot; None or empty leaves it to the rules.
        sweep: Whether this is one of several runs of a process.

    Returns:
        The headline value; NaN in processes other than the first.

    Raises:
        UserError: The configuration or the data cannot be used, or the disk is full.
    """
    started = time.perf_counter()
    silence()
    settings = Settings.of(config)
    lightning.seed_everything(settings.seed, verbose=False)
    if settings.limit is not None and hasattr(dataset, "members"):
        raise UserError(
            "limit would cut off whole members of a suite; use dataset.limit_each="
            f"{settings.limit} instead."
        )
    items = ReadableItems(dataset, settings.limit)
    baseline = find_baseline(settings.baseline, config)
    place = Path(folder)
    writer = PredictionWriter(place)
    pictures = Pictures(place / "pictures", settings.pictures, draw)
    callbacks = [writer, pictures, ProgressLine()]
    conductor = make_trainer(trainer, callbacks, sweep, getattr(model, "device_map", None))
    batches = cut(len(items), samples_a_batch(settings, conductor))
    leads = conductor.is_global_zero
    with alone_in(place) if leads else nullcontext():
        done: list[Record] = []
        if leads:
            identity = identity_of(config, model, dataset)
            earlier = earlier_run(settings.resume, place, identity)
            if earlier and is_final(earlier, config) and starts_others(conductor):
                return show(copied(earlier, place), baseline, config, place)
            done = carry_over(earlier, place, batches)
            declare(place, identity)
        left = unfinished(batches, {record.index for record in done})
        module = Evaluation(
            model,
            pruner,
            metric,
            settings.generation,
            count=all(record.prefill_flops_counted is None for record in done),
            adaptive=settings.batch_size == "auto",
        )
        predict(conductor, module, SharedBatches(items, left, model, settings.workers))
        if not leads:
            return float("nan")
        records, processes = gather(place, conductor.world_size)
        if missing := len(items) - len(records):
            raise UserError(
                f"Expected {len(items)} answers in {folder}; {missing} are missing (was a file "
                "removed?). Go on with resume=true."
            )
        records, judged = judge_records(
            records, metric, judge if isinstance(judge, Judge) else None
        )
        if judged["judged"]:
            write_atomically(place / "predictions.jsonl", "".join(map(Record.line, records)))
        report = outcome(
            records,
            processes,
            metric,
            names=names,
            config=config,
            seconds=time.perf_counter() - started,
            notes=[*getattr(dataset, "notes", ()), *resumed(done, records)],
            judged=judged,
        )
        write_atomically(place / FINISHED, json.dumps(report, indent=2, ensure_ascii=False))
        replaced(place)
    if callable(logger):
        track(logger(save_dir=place), report, records, sorted(place.glob("pictures/*.png")))
    return show(report, baseline, config, place)


def samples_a_batch(settings: Settings, trainer: lightning.Trainer) -> int:
    """The batch size; where it is "auto", what is tried first."""
    if settings.batch_size != "auto":
        return settings.batch_size
    return MOST_ON_GPU if on_gpus(trainer) else MOST_ON_CPU


def on_gpus(trainer: lightning.Trainer) -> bool:
    """Whether the processes have GPUs."""
    return isinstance(trainer.accelerator, CUDAAccelerator)


def starts_others(trainer: lightning.Trainer) -> bool:
    """Whether no process waits for this one, as those do that a cluster or torchrun started."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is None or not environment.creates_processes_externally


def is_final(earlier: Path, config: dict[str, Any]) -> bool:
    """Whether a run has finished, and with the judge of this one; another may grade its answers."""
    if not is_finished(earlier):
        return False
    judge = read_report(earlier)["run"]["config"].get("judge")
    return content(judge) == content(config.get("judge"))


def show(
    report: dict[str, Any], baseline: dict[str, Any] | None, config: dict[str, Any], folder: Path
) -> float:
    """Print the table; gives the headline's value."""
    differing = differences(baseline, config) if baseline is not None else []
    show_result(report, baseline, differing, folder)
    headline = report["run"]["headline"]["value"]
    return float("nan") if headline is None else float(headline)


def make_trainer(
    trainer: Callable[..., lightning.Trainer],
    callbacks: list[lightning.Callback],
    sweep: bool = False,
    device_map: str | None = None,
) -> lightning.Trainer:
    """The trainer, or one sentence about why it cannot be.

    Where a model is spread and several processes have GPUs, each gets its share of the machine's.

    Args:
        trainer: Makes it.
        callbacks: Its callbacks.
        sweep: Whether this is one of several runs of a process.
        device_map: How the model is spread over several devices, if it is.

    Raises:
        UserError: The hardware is missing, the strategy would start the sweep again, or all
            processes would put the model in one place.
    """
    made = build(trainer, callbacks)
    if device_map is not None and made.num_devices > 1 and on_gpus(made):
        if device_map not in SHARING:
            raise UserError(
                f"model.device_map must be {' or '.join(SHARING)} where {made.num_devices} "
                f"processes share the GPUs of a machine; got {device_map!r}."
            )
        firsts = first_gpus(CUDAAccelerator.auto_device_count(), made.num_devices)
        if made.device_ids == [*range(made.num_devices)]:  # a number was given, not a list
            made = build(trainer, callbacks, devices=firsts)
    launcher = made.strategy.launcher
    if sweep and made.world_size > 1 and isinstance(launcher, _SubprocessScriptLauncher):
        raise UserError(
            "A sweep (-m) cannot use trainer.strategy=ddp, which would start the whole sweep again "
            "in every process; use trainer=ddp or trainer.strategy=ddp_spawn."
        )
    return made


def build(
    trainer: Callable[..., lightning.Trainer], callbacks: list[lightning.Callback], **other: Any
) -> lightning.Trainer:
    """The trainer.

    Raises:
        UserError: The hardware is missing.
    """
    try:
        return trainer(callbacks=callbacks, logger=False, use_distributed_sampler=False, **other)
    except (MisconfigurationException, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"The trainer cannot be used here ({reason}); choose another with trainer=cpu or "
            "trainer=auto."
        ) from error


def predict(trainer: lightning.Trainer, module: Evaluation, shares: SharedBatches) -> None:
    """Run the trainer; a user's mistake in a spawned process arrives as the sentence that it is.

    Raises:
        UserError: As in the process.
    """
    try:
        trainer.predict(module, datamodule=shares, return_predictions=False)
    except ProcessRaisedException as error:
        _, found, sentence = str(error).rpartition(f"{UserError.__module__}.UserError: ")
        if not found:
            raise
        raise UserError(sentence.strip()) from error
    finally:
        module.release()


def gather(folder: Path, processes: int) -> tuple[list[Record], Sequence[dict[str, Any]]]:
    """All records in dataset order, and each process's measurements; one file of answers stays."""
    shards = [shard(folder, rank, processes) for rank in range(processes)]
    merged = folder / "predictions.jsonl"
    records = answers(folder)
    if processes > 1 or (folder / EARLIER).exists():
        write_atomically(merged, "".join(record.line() for record in records))
    notes = [folder / f"process-{rank}.json" for rank in range(processes)]
    measured = [json.loads(note.read_text(encoding="utf-8")) for note in notes]
    for path in (*notes, *shards, folder / EARLIER):
        if path != merged:
            path.unlink(missing_ok=True)
    return records, measured
