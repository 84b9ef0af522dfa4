"""What a run adds up to: from its predictions to the contents of `metrics.json`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ivcp.core.budget import Over
from ivcp.core.budgeted import Budgeted
from ivcp.core.metric import AnswerMetric, class_path, to_frame
from ivcp.core.pruner import Pruner
from ivcp.evaluation.job import Parts
from ivcp.results.prediction import TIMES, Prediction
from ivcp.results.provenance import git_state, versions
from ivcp.results.schema import (
    BudgetInfo,
    Efficiency,
    Judging,
    MetricInfo,
    PrimaryMetric,
    Quartiles,
    Results,
    RunInfo,
    Tokens,
)

ABOUT_THE_MODEL = ("device", "dtype", "attention", "rotary")
MEASURED = (*ABOUT_THE_MODEL, "processes", "seconds")
"""Fields of `RunInfo` that stand when a finished run's answers are only scored again."""


def results_of(
    parts: Parts,
    predictions: Sequence[Prediction],
    processes: Sequence[Mapping[str, Any]],
    *,
    judging: Judging,
    seconds: float,
    notes: Sequence[str],
    finished: Results | None = None,
) -> Results:
    """Metrics, efficiency, tokens, and what the run was.

    Args:
        parts: What the run was made of.
        predictions: All of them, in dataset order; failed samples count as wrong.
        processes: Measurements of each process, as `PredictionWriter` leaves them.
        judging: What a judging model had to do with it.
        seconds: How long the run took.
        notes: What a reader must know, beside the notes of dataset and metric.
        finished: Results of the same run that had finished, if no sample ran anew; what it measured
            stands.
    """
    metric, pruner, names = parts.metric, parts.pruner, parts.names
    answered = [prediction for prediction in predictions if prediction.failed is None]
    scored = [prediction.scored() for prediction in predictions]
    values = metric.values(scored)
    metrics = {name: value if math.isfinite(value) else None for name, value in values.items()}
    tokens = tokens_of(answered)
    if finished is None:
        efficiency = efficiency_of(answered, processes)
        measured = {name: processes[0][name] for name in ABOUT_THE_MODEL}
        measured |= {"processes": len(processes), "seconds": seconds}
    else:
        efficiency = finished.efficiency
        measured = {name: getattr(finished.run, name) for name in MEASURED}
    primary = metric_info(metric)
    asked = None
    if pruner.prunes():
        asked = budget_of(pruner, tokens, efficiency, answered)
    return Results(
        metrics=metrics,
        efficiency=efficiency,
        tokens=tokens,
        run=RunInfo(
            model=names["model"],
            pruner=names["pruner"],
            dataset=names["dataset"],
            variant=names.get("variant", ""),
            overrides=parts.overrides,
            ratio=tokens.keep_ratio
            if asked is not None and asked.ratio is None
            else pruner.keep_ratio,
            budget=asked,
            layers=tuple(stage.layer for stage in pruner.stages()),
            first_pass=pruner.first_pass(),
            unpruned=not pruner.prunes(),
            config=parts.config,
            versions=versions(),
            git=git_state(),
            **measured,
            batch_size=parts.config["batch_size"],
            samples=len(predictions),
            failed_samples=len(predictions) - len(answered),
            date=datetime.now().astimezone().isoformat(timespec="seconds"),
            primary_metric=PrimaryMetric(**dict(primary), value=metrics[primary.name]),
            points=tuple(name for name in metrics if metric.unit(name) != "%"),
            tasks={name: metric_info(task) for name, task in getattr(metric, "tasks", {}).items()},
            notes=(
                *getattr(parts.dataset, "notes", ()),
                *parts.remarks,
                *notes,
                *failure_notes(predictions),
                *metric.notes(to_frame(scored)),
            ),
            judge=judging,
        ),
    )


def failure_notes(predictions: Sequence[Prediction]) -> list[str]:
    """Why most of the failed samples failed, where there are any."""
    reasons = Counter(p.failed for p in predictions if p.failed is not None)
    return [
        f"{count:,} of {len(predictions):,} samples failed with: {reason.rstrip('.')}."
        for reason, count in reasons.most_common(1)
    ]


def budget_of(
    pruner: Pruner, tokens: Tokens, efficiency: Efficiency, predictions: Sequence[Prediction]
) -> BudgetInfo:
    """What was asked for, and what came out."""
    if not isinstance(pruner, Budgeted):
        fills = pruner.fills_ratio() or pruner.before_processor
        ratio = pruner.keep_ratio if fills else None
        return BudgetInfo(ratio=ratio, solved=fills, obtained=tokens.keep_ratio)
    found = {
        "final": tokens.keep_ratio,
        "layer_average": tokens.layer_average_ratio,
        "flops": efficiency.prefill_flops_ratio,
    }[pruner.count]
    if pruner.tokens is not None and pruner.count != "flops" and found is not None:
        images = [image for prediction in predictions for image in prediction.images]
        holders: dict[Over, int] = {
            "video": len(images),
            "frame": sum(len(image.frames) for image in images),
            "sample": len(predictions),
        }
        found *= (tokens.visual or 0) * len(predictions) / max(1, holders[pruner.budget_over])
    return BudgetInfo(
        count=pruner.count,
        over=pruner.budget_over,
        ratio=pruner.keep_ratio if pruner.tokens is None and pruner.solved else None,
        tokens=pruner.tokens,
        solved=pruner.solved,
        obtained=found,
    )


def metric_info(metric: AnswerMetric) -> MetricInfo:
    """What a reader must know of a metric to compare its primary value with another run's."""
    name, path = metric.primary_metric, "" if hasattr(metric, "tasks") else class_path(metric)
    return MetricInfo(name=name, unit=metric.unit(name), metric=path)


def tokens_of(predictions: Sequence[Prediction]) -> Tokens:
    """Means per sample, and ratios over all samples."""
    visual = sum(prediction.visual_tokens for prediction in predictions)
    processed = [
        tokens - (prediction.prompt_tokens - prediction.visual_tokens)
        for prediction in predictions
        for tokens in (*prediction.layer_tokens, *prediction.first_pass_tokens)
    ]
    layers = len(predictions[0].layer_tokens) if predictions else 0
    return Tokens(
        visual=mean(prediction.visual_tokens for prediction in predictions),
        kept=mean(prediction.kept_tokens for prediction in predictions),
        keep_ratio=ratio(sum(prediction.kept_tokens for prediction in predictions), visual),
        layer_average_ratio=ratio(sum(processed), visual * layers),
        prompt=mean(prediction.prompt_tokens for prediction in predictions),
        kept_in_box=means(prediction.kept_in_box for prediction in predictions),
        coverage=means(prediction.coverage for prediction in predictions),
    )


def efficiency_of(
    predictions: Sequence[Prediction], processes: Sequence[Mapping[str, Any]]
) -> Efficiency:
    """Memory, operations and times.

    If an interrupted run went on, rates are those of this start.

    Args:
        predictions: Of samples that were answered.
        processes: Measurements of each process, as `PredictionWriter` leaves them.
    """
    counted = next((p for p in predictions if p.prefill_flops_counted is not None), None)
    number = None if counted is None else counted.prefill_flops_counted
    flops = sum(prediction.prefill_flops for prediction in predictions)
    slowest = max((process["seconds"] for process in processes), default=0.0)
    generating = max((process["generating_seconds"] for process in processes), default=0.0)
    peaks = [process["peak_memory_bytes"] for process in processes]
    return Efficiency(
        kv_cache_bytes=mean(prediction.kv_cache_bytes for prediction in predictions),
        kv_cache_ratio=ratio(
            sum(prediction.kv_cache_bytes for prediction in predictions),
            sum(prediction.kv_cache_bytes_unpruned for prediction in predictions),
        ),
        prefill_flops_counted=number,
        prefill_flops_counted_sample=None if counted is None else counted.id,
        prefill_flops_counted_to_formula=None
        if counted is None or number is None
        else ratio(number, counted.prefill_flops),
        prefill_flops_formula=mean(prediction.prefill_flops for prediction in predictions),
        prefill_flops_ratio=ratio(
            flops, sum(prediction.prefill_flops_unpruned for prediction in predictions)
        ),
        **{name: Quartiles.of(getattr(p, name) for p in predictions) for name in TIMES},
        tokens_per_second=ratio(sum(p["generated_tokens"] for p in processes), generating),
        samples_per_second=ratio(sum(p["samples"] for p in processes), slowest),
        seconds_by_process=tuple(process["seconds"] for process in processes),
        halved_batches=sum(process["halvings"] for process in processes),
        peak_memory_bytes=max(filter(None, peaks), default=None),
    )


def mean(values: Iterable[float]) -> float | None:
    """Arithmetic mean; None for no values.

    >>> mean([1, 2]), mean([])
    (1.5, None)
    """
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else None


def means(values: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    """Mean of each place over the tuples that are not empty.

    >>> means([(1.0, 0.5), (), (0.5, 0.0)])
    (0.75, 0.25)
    """
    rows = [row for row in values if row]
    return tuple(sum(place) / len(rows) for place in zip(*rows, strict=True))


def ratio(part: float, total: float) -> float | None:
    """`part / total`; None if the total is 0."""
    return part / total if total else None
