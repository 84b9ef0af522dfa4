"""From parts to results in five steps: prepare, take over, answer, score, publish.

    prepare    check the settings, make the trainer, cut the dataset into batches
    take over  carry over finished batches where the run goes on
    answer     let Lightning's processes answer the rest; each writes a file of its own
    score      gather all answers; let a judge score what rules cannot
    publish    overlays, metrics.json, the experiment logger, the table on screen

A run that is stopped goes on with resume=true: each step leaves its result in the run's folder
before the next one starts.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import lightning
from lightning.pytorch.loggers import Logger

from ivcp.core.backend import Backend
from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.judge import Judge
from ivcp.core.metric import AnswerMetric
from ivcp.core.pruner import Pruner
from ivcp.evaluation.accounting import results_of
from ivcp.evaluation.callbacks import measurements
from ivcp.evaluation.data import AssignedBatches, SampleSource, unfinished
from ivcp.evaluation.earlier import take_over
from ivcp.evaluation.job import Job, Parts, prepare
from ivcp.evaluation.judging import judge_predictions
from ivcp.evaluation.module import Evaluation
from ivcp.evaluation.overlays import Draw, draw_missing
from ivcp.evaluation.process import Interrupted, StopsBetweenBatches, end_with, silence
from ivcp.evaluation.screen import show_result
from ivcp.evaluation.served import ServedEvaluation
from ivcp.evaluation.tracking import Tracker
from ivcp.evaluation.trainer import launches_workers, predict
from ivcp.results.files import write_atomically
from ivcp.results.load import PREDICTIONS, FinishedRun, baseline_for
from ivcp.results.prediction import Prediction
from ivcp.results.run_folder import PICTURES, RunFolder
from ivcp.results.schema import Judging, Results

log = logging.getLogger(__name__)


def evaluate(
    *,
    pruner: Pruner,
    model: ModelFamily,
    dataset: SampleSource,
    metric: AnswerMetric,
    trainer: Callable[..., lightning.Trainer],
    logger: Callable[..., Logger] | Mapping[str, Any] | None,
    draw: Draw,
    names: Mapping[str, str],
    config: dict[str, Any],
    folder: str,
    judge: Judge | Mapping[str, Any] | None = None,
    backend: Backend | Mapping[str, Any] | None = None,
    overrides: tuple[str, ...] = (),
    sweep: bool = False,
    quiet: bool = False,
) -> FinishedRun | None:
    """Evaluate, write `predictions.jsonl` and `metrics.json`, log, and show the table.

    Args:
        pruner: As in `Parts`, like all that is not described here.
        model: Likewise.
        dataset: Likewise.
        metric: Likewise.
        trainer: Makes the trainer when given `callbacks` and `logger`.
        logger: Makes the experiment logger when given `save_dir`; None or empty logs nowhere.
        draw: As in `Parts`.
        names: Likewise.
        config: Likewise.
        folder: The run's folder, which exists.
        judge: As in `Parts`; an empty mapping is none.
        backend: As in `Parts`; an empty mapping is none.
        overrides: As in `Parts`.
        sweep: Whether this is one of several runs of a process.
        quiet: Whether progress and table stay away; what must be known is said all the same.

    Returns:
        The finished run; None in processes other than the first.

    Raises:
        UserError: The configuration or the data cannot be used, the disk is full, or every sample
            failed.
        SystemExit: A signal stopped the run: with 130 for Ctrl-C, with 143 for SIGTERM.
    """
    started = time.perf_counter()
    silence()
    if multiprocessing.parent_process() is not None:  # a launcher runs several at a time
        end_with(os.getppid())
    files, stop, leads = RunFolder(folder), StopsBetweenBatches(), True
    parts = Parts(
        pruner=pruner,
        model=model,
        dataset=dataset,
        metric=metric,
        judge=judge if isinstance(judge, Judge) else None,
        backend=backend if isinstance(backend, Backend) else None,
        draw=draw,
        names=names,
        config=config,
        overrides=overrides,
    )
    try:
        with stop.listening():
            job = prepare(parts, trainer, files, stop, sweep, quiet)
            leads = job.trainer.is_global_zero
            if leads:
                with files.alone():
                    return lead(job, logger, started)
            answer(job, job.batches)
            return None
    except Interrupted as interrupt:
        if leads:
            log.warning(
                "Interrupted after %d of %d; the same command with resume=true goes on.",
                len(files.answers()),
                min(len(dataset), config.get("limit") or len(dataset)),
            )
        raise SystemExit(interrupt.exit_code) from interrupt


def lead(
    job: Job, logger: Callable[..., Logger] | Mapping[str, Any] | None, started: float
) -> FinishedRun:
    """The steps of the first process.

    Args:
        job: The run.
        logger: As in `evaluate`.
        started: When the run started, as `time.perf_counter` has it.
    """
    earlier = take_over(job)
    if earlier.stands and earlier.finished is not None:
        return show(job, earlier.finished)
    with Tracker.start(logger, job) as tracker:
        done = {prediction.index for prediction in earlier.predictions}
        todo = unfinished(job.batches, done)
        processes = 0  # unless there is work, nothing is measured yet, or others wait for this one
        if todo or earlier.finished is None or not launches_workers(job.trainer):
            counted = any(answer.prefill_flops_counted for answer in earlier.predictions)
            with tracker.watching(job.parts.metric):
                processes = answer(job, todo, count=not counted)
        predictions, measured, judging = score(job, processes)
        results = results_of(
            job.parts,
            predictions,
            measured,
            judging=judging,
            seconds=time.perf_counter() - started,
            notes=earlier.notes(len(predictions)),
            finished=earlier.finished,
        )
        return publish(job, results, predictions, tracker)


def answer(job: Job, batches: Sequence[tuple[int, ...]], count: bool = True) -> int:
    """Let the processes answer what is left; all of them come here.

    Args:
        job: The run.
        batches: Indices of the samples of each batch; those of the first process hold for all.
        count: Whether the operations of one sample's prefill are counted.

    Returns:
        How many processes took part.
    """
    parts, settings = job.parts, job.settings
    kind = Evaluation if parts.backend is None else partial(ServedEvaluation, parts.backend)
    module = kind(
        parts.model,
        parts.pruner,
        parts.metric,
        settings.generation,
        count=count,
        adaptive=settings.batch_size == "auto",
        seed=settings.seed,
    )
    data = AssignedBatches(
        job.items, batches, parts.model, settings.workers, settings.worker_timeout, parts.pruner
    )
    predict(job.trainer, module, data, job.stop)
    return job.trainer.world_size


def score(job: Job, processes: int) -> tuple[list[Prediction], list[dict[str, Any]], Judging]:
    """Gather all answers in one file, and let a judge score what rules cannot.

    Args:
        job: The run.
        processes: How many processes took part.

    Returns:
        All predictions in dataset order, each process's measurements, and the judge's part.

    Raises:
        UserError: Answers are missing.
    """
    folder = job.folder
    predictions = folder.answers()
    if missing := len(job.items) - len(predictions):
        raise UserError(
            f"Expected {len(job.items)} answers in {folder.path}; {missing} are missing (was a "
            "file removed?). Go on with resume=true."
        )
    paths = [measurements(folder.path, rank) for rank in range(processes)]
    measured = [json.loads(path.read_bytes()) for path in paths]
    merged = folder.path / PREDICTIONS
    scored, judging = judge_predictions(predictions, job.parts.metric, job.parts.judge)
    if judging.judged or folder.answer_files() != [merged]:
        write_atomically(merged, "".join(map(Prediction.line, scored)))
    for path in (*paths, *folder.answer_files()):
        if path != merged:
            path.unlink()
    return scored, measured, judging


def publish(
    job: Job, results: Results, predictions: Sequence[Prediction], tracker: Tracker
) -> FinishedRun:
    """Draw overlays, write the results, log, and show the table.

    Raises:
        UserError: All samples failed.
    """
    pictures, count = job.folder.path / PICTURES, job.settings.pictures
    draw_missing(pictures, count, job.parts.draw, predictions, job.items)
    job.folder.finish(results)
    tracker.finish(results, predictions)
    run = show(job, results)
    if results.run.failed_samples == results.run.samples:
        raise UserError(
            f"All {results.run.samples} samples failed, so this is no result; the first: "
            f"{str(predictions[0].failed).rstrip('.')}."
        )
    return run


def show(job: Job, results: Results) -> FinishedRun:
    """Show the table, unless the job is quiet."""
    run = FinishedRun(job.folder.path, results)
    if not job.quiet:
        show_result(run, baseline_for(run, job.settings.baseline))
    return run
