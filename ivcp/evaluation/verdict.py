"""Metrics as evaluation uses them: in one process, over all records."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ivcp.core.metric import AnswerMetric
from ivcp.evaluation.records import Record


def final_metrics(metric: AnswerMetric, records: Sequence[Record]) -> dict[str, float | None]:
    """Values over all records, failed ones counted as wrong; None where undefined."""
    values = metric.values(record.scored() for record in records)
    return {name: float(v) if math.isfinite(v) else None for name, v in values.items()}
