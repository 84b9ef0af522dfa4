"""Metrics as evaluation uses them: judged in one process, over all records."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ivcp.core.metric import AnswerMetric
from ivcp.evaluation.records import Record


def judge_locally(metric: AnswerMetric) -> AnswerMetric:
    """Let `metric.compute()` never wait for other processes.

    While processes run they are at different batches; at the end one process has all the records.
    """
    metric.distributed_available_fn = nobody_else
    return metric


def nobody_else() -> bool:
    """Stands for "is this run distributed?"; a named function, since it travels to processes."""
    return False


def final_metrics(metric: AnswerMetric, records: Sequence[Record]) -> dict[str, float | None]:
    """Values over all records, failed ones counted as wrong; None for a value without a meaning."""
    metric.reset()
    metric.update([record.verdict() for record in records])
    values = {name: float(value) for name, value in metric.compute().items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
