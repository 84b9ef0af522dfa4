"""Metrics as evaluation uses them: judged in one process, with a place for unreadable samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ivcp.core.metric import Answer, AnswerMetric
from ivcp.core.types import Task
from ivcp.evaluation.records import Record

STAND_INS: dict[Task, Answer] = {
    "grounding": (0.0, 0.0, 1.0, 1.0),
    "yes_no": "Yes",
    "multiple_choice": "A",
}
"""Ground truth of a sample whose own is unknown; nothing was parsed for it, so it is wrong."""


def stand_in(record: Record) -> Answer:
    """The record's ground truth; if the sample could not be read, one that makes it wrong."""
    return STAND_INS[record.task] if record.answer is None else record.answer


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
    metric.update([record.parsed for record in records], [stand_in(record) for record in records])
    values = {name: float(value) for name, value in metric.compute().items()}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
