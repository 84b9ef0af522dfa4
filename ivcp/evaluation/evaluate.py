"""From parts to results: evaluate one pruner on one dataset and write everything down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.multiprocessing.spawn import ProcessRaisedException

from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.judge import Judge
from ivcp.core.metric import AnswerMetric, class_path
from ivcp.core.pruner import Pruner
from ivcp.evaluation.baseline import differences, find_baseline
from ivcp.evaluation.callbacks import Draw, Pictures, PredictionWriter, ProgressLine, shard
from ivcp.evaluation.data import ReadableItems, SampleSource, make_loader
from ivcp.evaluation.judging import judge_records
from ivcp.evaluation.module import Evaluation
from ivcp.evaluation.noise import silence
from ivcp.evaluation.provenance import git_state, versions
from ivcp.evaluation.records import Record, read_records, write_atomically
from ivcp.evaluation.screen import show_result
from ivcp.evaluation.settings import Settings
from ivcp.evaluation.summary import efficiency_block, tokens_block
from ivcp.evaluation.tracking import track
from ivcp.evaluation.verdict import final_metrics


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
    items = ReadableItems(dataset, settings.limit)
    baseline = find_baseline(settings.baseline, config)
    place = Path(folder)
    writer = PredictionWriter(place)
    pictures = Pictures(place / "pictures", settings.pictures, draw)
    conductor = make_trainer(trainer, [writer, pictures, ProgressLine()], sweep)
    network, processor = model.load()
    loader = make_loader(
        items, model, processor, batch_size=settings.batch_size, workers=settings.workers
    )
    (place / "metrics.json").unlink(missing_ok=True)
    module = Evaluation(network, processor, model, pruner, metric, settings.generation)
    predict(conductor, module, loader)
    if not conductor.is_global_zero:
        return float("nan")
    records, processes = gather(place, conductor.world_size)
    if len(records) != len(items):
        raise RuntimeError(f"Expected {len(items)} records, but got {len(records)} in {folder}.")
    records, judged = judge_records(records, metric, judge if isinstance(judge, Judge) else None)
    if judged["judged"]:
        write_atomically(place / "predictions.jsonl", "".join(map(Record.line, records)))
    answered = [record for record in records if record.failed is None]
    values = final_metrics(metric, records)
    report = {
        "metrics": values,
        "efficiency": efficiency_block(answered, processes),
        "tokens": tokens_block(answered),
        "run": {
            **names,
            "ratio": config["ratio"],
            "layer": config["pruner"].get("layer"),
            "config": config,
            "versions": versions(),
            "git": git_state(),
            "device": processes[0]["device"],
            "dtype": processes[0]["dtype"],
            "attention": processes[0]["attention"],
            "processes": len(processes),
            "batch_size": settings.batch_size,
            "samples": len(records),
            "failed_samples": len(records) - len(answered),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": time.perf_counter() - started,
            "headline": {
                "name": metric.headline,
                "value": values[metric.headline],
                **_headline(metric),
            },
            "points": [name for name in values if metric.unit(name) != "%"],
            "members": {
                name: {"headline": one.headline, **_headline(one)}
                for name, one in getattr(metric, "members", {}).items()
            },
            "notes": list(getattr(dataset, "notes", ())),
            "judge": judged,
        },
    }
    write_atomically(place / "metrics.json", json.dumps(report, indent=2, ensure_ascii=False))
    if callable(logger):
        track(logger(save_dir=place), report, records, sorted(place.glob("pictures/*.png")))
    differing = differences(baseline, config) if baseline is not None else []
    show_result(report, baseline, differing, place)
    headline = values[metric.headline]
    return float("nan") if headline is None else headline


def _headline(metric: AnswerMetric) -> dict[str, Any]:
    """What a reader must know of a metric to compare its headline with another run's."""
    return {"unit": metric.unit(metric.headline), "metric": class_path(metric)}


def make_trainer(
    trainer: Callable[..., lightning.Trainer], callbacks: list[lightning.Callback], sweep: bool
) -> lightning.Trainer:
    """The trainer, or one sentence about why it cannot be.

    Raises:
        UserError: The hardware is missing, or the strategy would start the sweep again.
    """
    try:
        made = trainer(callbacks=callbacks, logger=False)
    except (MisconfigurationException, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"The trainer cannot be used here ({reason}); choose another with trainer=cpu or "
            "trainer=auto."
        ) from error
    launcher = made.strategy.launcher
    if sweep and made.world_size > 1 and isinstance(launcher, _SubprocessScriptLauncher):
        raise UserError(
            "A sweep (-m) cannot use trainer.strategy=ddp, which would start the whole sweep again "
            "in every process; use trainer=ddp or trainer.strategy=ddp_spawn."
        )
    return made


def predict(trainer: lightning.Trainer, module: Evaluation, loader: Any) -> None:
    """Run the trainer; a user's mistake in a spawned process arrives as the sentence that it is.

    Raises:
        UserError: As in the process.
    """
    try:
        trainer.predict(module, loader, return_predictions=False)
    except ProcessRaisedException as error:
        _, found, sentence = str(error).rpartition(f"{UserError.__module__}.UserError: ")
        if not found:
            raise
        raise UserError(sentence.strip()) from error


def gather(folder: Path, processes: int) -> tuple[list[Record], Sequence[dict[str, Any]]]:
    """All processes' records in dataset order, and their measurements; one file remains."""
    shards = [shard(folder, rank, processes) for rank in range(processes)]
    records = [record for path in shards for record in read_records(path)]
    records.sort(key=lambda record: record.index)
    merged = folder / "predictions.jsonl"
    if processes > 1:
        write_atomically(merged, "".join(record.line() for record in records))
    notes = [folder / f"process-{rank}.json" for rank in range(processes)]
    measured = [json.loads(note.read_text(encoding="utf-8")) for note in notes]
    for path in (*notes, *shards):
        if path != merged:
            path.unlink()
    return records, measured
