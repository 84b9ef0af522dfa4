"""From parts to results in five steps: prepare, take over, predict, score, publish.

    prepare    check the settings, make the trainer, cut the dataset into batches
    take over  lock the folder; carry over finished batches where the run goes on
    predict    let Lightning's processes answer the rest; each writes its own file
    score      gather all answers; let a judge score what rules cannot
    publish    metrics.json, overlays, the experiment logger, the table on screen

A run that is stopped between two steps goes on with the next one: every step writes its result into
the folder before the next one starts.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import Logger

from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.judge import Judge
from ivcp.core.metric import AnswerMetric
from ivcp.core.pruner import Pruner
from ivcp.evaluation.accounting import results_of
from ivcp.evaluation.callbacks import PredictionWriter, ProgressLine, measurements
from ivcp.evaluation.data import (
    AssignedBatches,
    Numbers,
    ReadableItems,
    SampleSource,
    cut,
    unfinished,
)
from ivcp.evaluation.judging import judge_predictions
from ivcp.evaluation.module import Evaluation
from ivcp.evaluation.overlays import Draw, draw_missing
from ivcp.evaluation.process import Interrupted, StopsBetweenBatches, end_with, silence
from ivcp.evaluation.provenance import identity_of
from ivcp.evaluation.screen import show_result
from ivcp.evaluation.settings import Settings
from ivcp.evaluation.tracking import Tracker
from ivcp.evaluation.trainer import (
    EndsWithFirst,
    launches_workers,
    make_trainer,
    on_gpus,
    predict,
)
from ivcp.results.comparability import settings as settings_in
from ivcp.results.files import write_atomically
from ivcp.results.load import (
    METRICS,
    PREDICTIONS,
    FinishedRun,
    find_baseline,
    find_runs,
    read_results,
)
from ivcp.results.prediction import Prediction
from ivcp.results.run_folder import PICTURES, RunFolder, find_same
from ivcp.results.schema import Judging, Results

log = logging.getLogger(__name__)

MOST_ON_GPU, MOST_ON_CPU = 64, 8
"""Samples of a batch that batch_size=auto tries first."""
ROOTS = (Path("outputs"), Path("multirun"))
"""Where other runs are looked for."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run and its parts, which `evaluate` describes; `settings` are checked.

    Attributes:
        folder: The run's.
        stop: Listens to signals.
    """

    pruner: Pruner
    model: ModelFamily
    dataset: SampleSource
    metric: AnswerMetric
    judge: Judge | None
    draw: Draw
    names: Mapping[str, str]
    config: dict[str, Any]
    settings: Settings
    folder: RunFolder
    stop: StopsBetweenBatches


@dataclass(frozen=True)
class Plan:
    """What is to be done, and by whom.

    Attributes:
        items: The samples that the run takes.
        batches: Indices of the samples of each batch.
        trainer: Runs the processes.
    """

    items: ReadableItems
    batches: Sequence[Numbers]
    trainer: lightning.Trainer


@dataclass(frozen=True)
class Earlier:
    """What an earlier start of the run left.

    Attributes:
        predictions: Answers of finished batches.
        finished: Results of the run, if it had finished.
        nothing_left: Whether its results stand as they are.
    """

    predictions: Sequence[Prediction] = ()
    finished: Results | None = None
    nothing_left: bool = False

    def notes(self, predictions: Sequence[Prediction]) -> tuple[str, ...]:
        """What a reader of the times must know."""
        if self.finished is not None:
            return ()
        if not self.predictions:
            return ()
        return (
            f"An interrupted run went on: {len(self.predictions):,} of {len(predictions):,} "
            "answers were there already; rates are those of the others.",
        )


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
    sweep: bool = False,
) -> float:
    """Evaluate, write `predictions.jsonl` and `metrics.json`, log, and show the table.

    Args:
        pruner: The method.
        model: The family that loads the weights, here, and reads the answers.
        dataset: The samples.
        metric: Scores the answers.
        trainer: Makes the trainer when given `callbacks` and `logger`.
        logger: Makes the experiment logger when given `save_dir`; None or empty logs nowhere.
        draw: Draws the kept tokens of an image.
        names: Names of "model", "pruner" and "dataset" for the record, and perhaps a "variant".
        config: The whole resolved configuration, for the record; evaluation itself follows the
            keys that `Settings` has.
        folder: The run's folder, which exists.
        judge: Scores answers that the metric's rules cannot; None or empty leaves it to the rules.
        sweep: Whether this is one of several runs of a process.

    Returns:
        The primary metric; NaN in processes other than the first.

    Raises:
        UserError: The configuration or the data cannot be used, the disk is full, or every sample
            failed.
        SystemExit: A signal stopped the run: with 130 for Ctrl-C, with 143 for SIGTERM.
    """
    started = time.perf_counter()
    silence()
    if multiprocessing.parent_process() is not None:  # a launcher runs several at a time
        end_with(os.getppid())
    files, stop = RunFolder(folder), StopsBetweenBatches()
    job, tracker = None, Tracker(None, files)
    try:
        with stop.listening():
            job = Job(
                pruner=pruner,
                model=model,
                dataset=dataset,
                metric=metric,
                judge=judge if isinstance(judge, Judge) else None,
                draw=draw,
                names=names,
                config=config,
                settings=Settings.of(config),
                folder=files,
                stop=stop,
            )
            plan = prepare(job, trainer, sweep)
            if not plan.trainer.is_global_zero:
                answer(job, plan, None)
                return float("nan")
            with files.alone():
                earlier = take_over(job, plan)
                if earlier.nothing_left:
                    return show(job, FinishedRun(files.path, read_results(files.path / METRICS)))
                tracker = Tracker.start(logger, files, described(job), config)
                processes = answer(job, plan, earlier, tracker)
                predictions, measured, judging = score(job, plan, processes)
                results = results_of(
                    predictions,
                    measured,
                    metric,
                    pruner,
                    names=names,
                    config=config,
                    seconds=time.perf_counter() - started,
                    notes=(*getattr(dataset, "notes", ()), *earlier.notes(predictions)),
                    judging=judging,
                    finished=earlier.finished,
                )
                return publish(job, plan, results, predictions, tracker)
    except Interrupted as interrupt:
        tracker.fail()
        if job is not None:
            say_interrupted(job)
        raise SystemExit(interrupt.exit_code) from interrupt
    except BaseException:
        tracker.fail()
        raise


def prepare(job: Job, trainer: Callable[..., lightning.Trainer], sweep: bool) -> Plan:
    """Make the trainer, and cut the dataset into batches.

    Args:
        job: The run.
        trainer: Makes the trainer.
        sweep: Whether this is one of several runs of a process.

    Raises:
        UserError: The dataset is empty, or the trainer cannot be used.
    """
    settings, dataset = job.settings, job.dataset
    lightning.seed_everything(settings.seed, verbose=False)
    if settings.limit is not None and hasattr(dataset, "tasks"):
        raise UserError(
            "limit would cut off whole tasks of a group; use dataset.limit_each="
            f"{settings.limit} instead."
        )
    items = ReadableItems(dataset, settings.limit)
    if settings.baseline not in (None, "auto"):
        read_baseline(settings.baseline)
    writer = PredictionWriter(job.folder.path)
    callbacks = [writer, EndsWithFirst(), ProgressLine(), job.stop]
    made = make_trainer(trainer, callbacks, sweep, getattr(job.model, "device_map", None))
    size = settings.batch_size
    if size == "auto":
        size = MOST_ON_GPU if on_gpus(made) else MOST_ON_CPU
    return Plan(items, cut(len(items), size), made)


def take_over(job: Job, plan: Plan) -> Earlier:
    """Carry finished batches of an earlier start over, and make the folder this run's.

    Raises:
        UserError: The folder holds answers that would be lost, or answers of other samples.
    """
    resume, folder = job.settings.resume, job.folder
    identity = identity_of(job.config, job.model, job.dataset)
    source = folder.resumable(resume, identity)
    if source is None and resume is True:
        source = find_same(identity, folder, ROOTS)
        if source is None:
            log.warning("resume=true found nothing to resume: the run starts from the beginning.")
    answers = [] if source is None else source.answers()
    for prediction in answers:
        if not is_of(prediction, plan.items):
            raise UserError(
                f"The answer with the index {prediction.index} and the id {prediction.id} in "
                f"{source and source.path} is of no sample of this dataset; nothing was changed. "
                "Move the folder away, or choose another with hydra.run.dir=FOLDER."
            )
    open_batches = unfinished(plan.batches, {prediction.index for prediction in answers})
    finished = None
    if source is not None and not open_batches:
        finished = source.results()
    if source and finished and same_judge(finished, job) and launches_workers(plan.trainer):
        folder.copy_from(source)
        return Earlier(finished=finished, nothing_left=True)
    todo = {number for batch in open_batches for number in batch}
    usable = {prediction.index for prediction in answers} - todo
    predictions = folder.carry_over(source, usable)
    folder.declare(identity)
    return Earlier(predictions, finished)


def is_of(prediction: Prediction, items: ReadableItems) -> bool:
    """Whether a prediction is of the sample that its index names."""
    return prediction.index < len(items) and prediction.id == items.sample_id(prediction.index)


def same_judge(finished: Results, job: Job) -> bool:
    """Whether a finished run had the judge of this one; another may score its answers."""
    return settings_in(finished.run.config, ("judge",)) == settings_in(job.config, ("judge",))


def described(job: Job) -> dict[str, Any]:
    """What tells the run from others before it starts."""
    layers = [stage.layer for stage in job.pruner.stages()]
    return {**job.names, "ratio": job.pruner.keep_ratio, "layers": layers}


def answer(job: Job, plan: Plan, earlier: Earlier | None, tracker: Tracker | None = None) -> int:
    """Let the processes answer what is left; all of them come here.

    Returns:
        How many processes took part.
    """
    predictions = () if earlier is None else earlier.predictions
    todo = unfinished(plan.batches, {prediction.index for prediction in predictions})
    if earlier and not todo and launches_workers(plan.trainer):
        return 0  # nobody waits for this process
    module = Evaluation(
        job.model,
        job.pruner,
        job.metric,
        job.settings.generation,
        count=all(prediction.prefill_flops_counted is None for prediction in predictions),
        adaptive=job.settings.batch_size == "auto",
        seed=job.settings.seed,
    )
    workers, timeout = job.settings.workers, job.settings.worker_timeout
    batches = AssignedBatches(plan.items, todo, job.model, workers, timeout)
    watch = tracker and tracker.watch(job.metric)
    try:
        predict(plan.trainer, module, batches, job.stop)
    finally:
        if watch:
            watch.stop()
    return plan.trainer.world_size


def score(
    job: Job, plan: Plan, processes: int
) -> tuple[list[Prediction], list[dict[str, Any]], Judging]:
    """Gather all answers in one file, and let a judge score what rules cannot.

    Args:
        job: The run.
        plan: Its plan.
        processes: How many processes took part.

    Returns:
        All predictions in dataset order, each process's measurements, and the judge's part.

    Raises:
        UserError: Answers are missing.
    """
    folder = job.folder
    predictions = folder.answers()
    if missing := len(plan.items) - len(predictions):
        raise UserError(
            f"Expected {len(plan.items)} answers in {folder.path}; {missing} are missing (was a "
            "file removed?). Go on with resume=true."
        )
    paths = [measurements(folder.path, rank) for rank in range(processes)]
    measured = [json.loads(path.read_bytes()) for path in paths]
    merged = folder.path / PREDICTIONS
    scored, judging = judge_predictions(predictions, job.metric, job.judge)
    if judging.judged or folder.answer_files() != [merged]:
        write_atomically(merged, "".join(map(Prediction.line, scored)))
    for path in (*paths, *folder.answer_files()):
        if path != merged:
            path.unlink()
    return scored, measured, judging


def publish(
    job: Job, plan: Plan, results: Results, predictions: Sequence[Prediction], tracker: Tracker
) -> float:
    """Write the results, draw overlays, log, and show the table; gives the primary metric.

    Raises:
        UserError: All samples failed.
    """
    count = job.settings.pictures
    draw_missing(job.folder.path / PICTURES, count, job.draw, predictions, plan.items)
    job.folder.finish(results)
    tracker.finish(results, predictions)
    value = show(job, FinishedRun(job.folder.path, results))
    if results.run.failed_samples == results.run.samples:
        raise UserError(
            f"All {results.run.samples} samples failed, so this is no result; the first: "
            f"{predictions[0].failed}."
        )
    return value


def show(job: Job, run: FinishedRun) -> float:
    """Show the table; gives the primary metric, NaN where it is undefined."""
    show_result(run, baseline_of(job, run))
    value = run.info.primary_metric.value
    return float("nan") if value is None else value


def baseline_of(job: Job, run: FinishedRun) -> FinishedRun | None:
    """The unpruned run that is shown beside a run."""
    if job.settings.baseline is None or (job.settings.baseline == "auto" and run.info.unpruned):
        return None
    if job.settings.baseline != "auto":
        return read_baseline(job.settings.baseline)
    runs, _ = find_runs([root for root in ROOTS if root.is_dir()])  # damaged ones are no baseline
    return find_baseline(run.info, runs)


def read_baseline(folder: str) -> FinishedRun:
    """The run of a folder.

    Raises:
        UserError: It holds none.
    """
    try:
        return FinishedRun(Path(folder), read_results(Path(folder) / METRICS))
    except UserError as error:
        raise UserError(
            f"baseline must be null, auto, or the folder of a finished run: {error}"
        ) from error


def say_interrupted(job: Job) -> None:
    """Say how far the run is, and what goes on with it."""
    limit, total = job.settings.limit, len(job.dataset)
    total = total if limit is None else min(limit, total)
    done = len(job.folder.answers())
    log.warning(
        "Interrupted after %d of %d; the same command with resume=true goes on.", done, total
    )
