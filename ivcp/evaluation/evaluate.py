"""From parts to results: evaluate one pruner on one dataset and write everything down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers import Logger

from ivcp.core.comparable import content
from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.judge import Judge
from ivcp.core.metric import AnswerMetric
from ivcp.core.pruner import Pruner
from ivcp.evaluation.baseline import differences, find_baseline
from ivcp.evaluation.callbacks import (
    Draw,
    Pictures,
    PredictionWriter,
    ProgressLine,
    shard,
)
from ivcp.evaluation.data import ReadableItems, SampleSource, SharedBatches
from ivcp.evaluation.identity import identity_of
from ivcp.evaluation.judging import judge_records
from ivcp.evaluation.module import Evaluation
from ivcp.evaluation.outcome import outcome, resumed
from ivcp.evaluation.plan import cut, unfinished
from ivcp.evaluation.processes import NoOrphan, make_trainer, on_gpus, predict, starts_others
from ivcp.evaluation.quiet import silence
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
        names: Names of "model", "pruner" and "dataset" for the record, and perhaps a "variant".
        config: The whole resolved configuration, for the record; evaluation itself follows the
            keys that `Settings` has.
        folder: The run's folder, which exists.
        judge: Reads answers that the metric's rules cannot; None or empty leaves it to the rules.
        sweep: Whether this is one of several runs of a process.

    Returns:
        The primary metric value; NaN in processes other than the first.

    Raises:
        UserError: The configuration or the data cannot be used, or the disk is full.
    """
    started = time.perf_counter()
    silence()
    settings = Settings.of(config)
    lightning.seed_everything(settings.seed, verbose=False)
    if settings.limit is not None and hasattr(dataset, "tasks"):
        raise UserError(
            "limit would cut off whole tasks of a group; use dataset.limit_each="
            f"{settings.limit} instead."
        )
    items = ReadableItems(dataset, settings.limit)
    baseline = find_baseline(settings.baseline, config)
    place = Path(folder)
    writer = PredictionWriter(place)
    pictures = Pictures(place / "pictures", settings.pictures, draw)
    callbacks = [writer, pictures, NoOrphan(), ProgressLine()]
    conductor = make_trainer(trainer, callbacks, sweep, getattr(model, "device_map", None))
    batches = cut(len(items), samples_a_batch(settings, conductor))
    leads = conductor.is_global_zero
    with alone_in(place) if leads else nullcontext():
        done: list[Record] = []
        finished: dict[str, Any] | None = None
        if leads:
            identity = identity_of(config, model, dataset)
            earlier = earlier_run(settings.resume, place, identity)
            if earlier and is_finished(earlier):
                finished = read_report(earlier)
                if same_judge(finished, config) and starts_others(conductor):
                    return show(copied(earlier, place), baseline, config, place)
            done = carry_over(earlier, place, batches)
            declare(place, identity)
        left = unfinished(batches, {record.index for record in done})
        finished = None if left else finished
        module = Evaluation(
            model,
            pruner,
            metric,
            settings.generation,
            count=all(record.prefill_flops_counted is None for record in done),
            adaptive=settings.batch_size == "auto",
            seed=settings.seed,
        )
        asked = finished is None or not starts_others(conductor)  # those that wait take part
        if asked:
            predict(conductor, module, SharedBatches(items, left, model, settings.workers))
        if not leads:
            return float("nan")
        records, processes = gather(place, conductor.world_size if asked else 0)
        if missing := len(items) - len(records):
            raise UserError(
                f"Expected {len(items)} answers in {folder}; {missing} are missing (was a file "
                "removed?). Go on with resume=true."
            )
        records, judged = judge_records(
            records, metric, judge if isinstance(judge, Judge) else None
        )
        if judged["scored"]:
            write_atomically(place / "predictions.jsonl", "".join(map(Record.line, records)))
        report = outcome(
            records,
            processes,
            metric,
            names=names,
            config=config,
            seconds=time.perf_counter() - started,
            notes=[
                *getattr(dataset, "notes", ()),
                *(resumed(done, records) if finished is None else ()),
            ],
            judged=judged,
            finished=finished,
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


def same_judge(finished: dict[str, Any], config: dict[str, Any]) -> bool:
    """Whether a finished run had the judge of this one; another may grade its answers."""
    judge = finished["run"]["config"].get("judge")
    return content(judge) == content(config.get("judge"))


def show(
    report: dict[str, Any], baseline: dict[str, Any] | None, config: dict[str, Any], folder: Path
) -> float:
    """Print the table; gives the primary metric's value."""
    differing = differences(baseline, config) if baseline is not None else []
    show_result(report, baseline, differing, folder)
    primary_metric = report["run"]["primary_metric"]["value"]
    return float("nan") if primary_metric is None else float(primary_metric)


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
