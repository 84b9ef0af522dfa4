"""What a finished run reports: the contents of `metrics.json`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ivcp.core.metric import AnswerMetric, class_path, to_frame
from ivcp.evaluation.provenance import git_state, versions
from ivcp.evaluation.records import Record
from ivcp.evaluation.summary import efficiency_block, tokens_block
from ivcp.evaluation.verdict import final_metrics

ABOUT_THE_MODEL = ("device", "dtype", "attention", "rotary")


def outcome(
    records: Sequence[Record],
    processes: Sequence[dict[str, Any]],
    metric: AnswerMetric,
    *,
    names: dict[str, str],
    config: dict[str, Any],
    seconds: float,
    notes: Sequence[str],
    judged: dict[str, Any],
    finished: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Metrics, efficiency, tokens, and what the run was.

    Args:
        records: All of them, in dataset order.
        processes: Measurements of each process.
        metric: Judges.
        names: Names of "model", "pruner" and "dataset".
        config: The whole resolved configuration.
        seconds: How long the run took.
        notes: What a reader must know.
        judged: What a judging model had to do with it.
        finished: The report of the same run that had finished, if no sample was asked anew; what it
            measured stands.
    """
    answered = [record for record in records if record.failed is None]
    values = final_metrics(metric, records)
    if finished is None:
        efficiency = efficiency_block(answered, processes)
        measured = {name: processes[0][name] for name in ABOUT_THE_MODEL}
        measured |= {"processes": len(processes), "seconds": seconds}
    else:
        efficiency = finished["efficiency"]
        measured = {n: finished["run"][n] for n in (*ABOUT_THE_MODEL, "processes", "seconds")}
    return {
        "metrics": values,
        "efficiency": efficiency,
        "tokens": tokens_block(answered),
        "run": {
            **names,
            "ratio": config["ratio"],
            "layer": layer_of(config["pruner"]),
            "config": config,
            "versions": versions(),
            "git": git_state(),
            **measured,
            "batch_size": config["batch_size"],
            "samples": len(records),
            "failed_samples": len(records) - len(answered),
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "primary_metric": {
                "name": metric.primary_metric,
                "value": values[metric.primary_metric],
                **_primary(metric),
            },
            "points": [name for name in values if metric.unit(name) != "%"],
            "tasks": {
                name: {"primary_metric": one.primary_metric, **_primary(one)}
                for name, one in getattr(metric, "tasks", {}).items()
            },
            "notes": [*notes, *metric.notes(to_frame(record.scored() for record in records))],
            "judge": judged,
        },
    }


def layer_of(pruner: dict[str, Any]) -> int | list[int] | None:
    """Layer or layers at which a pruner, or a method in it, acts, as configured; None for none."""
    layer: int | list[int] | None = pruner.get("layer", pruner.get("layers"))
    if layer is not None:
        return layer
    parts = pruner.get("parts")
    inner = list(parts.values()) if isinstance(parts, dict) else [pruner.get("base")]
    found: list[int] = []
    for one in (layer_of(part) for part in inner if isinstance(part, dict)):
        found += one if isinstance(one, list) else [] if one is None else [one]
    return (found[0] if len(found) == 1 else found) or None


def resumed(done: Sequence[Record], records: Sequence[Record]) -> list[str]:
    """A note if an interrupted run went on: times of its first part were measured then."""
    if not done:
        return []
    return [
        f"An interrupted run went on: {len(done):,} of {len(records):,} answers were there "
        "already; rates are those of the others."
    ]


def _primary(metric: AnswerMetric) -> dict[str, Any]:
    """What a reader must know of a metric to compare its primary metric with another run's."""
    return {"unit": metric.unit(metric.primary_metric), "metric": class_path(metric)}
