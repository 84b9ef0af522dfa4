"""What a run wrote down of each sample, as the metric that judged it sees it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ivcp.core.errors import UserError
from ivcp.core.metric import AnswerMetric, ScoredAnswer, Statistics, find_metric, to_frame
from ivcp.report.runs import Run

FILE = "predictions.jsonl"
JUDGED = ("parsed", "answer", "score")
FOREIGN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What records raise that are none, and metrics on records that are not theirs."""

Lines: TypeAlias = Mapping[str, ScoredAnswer]
"""Scored answers by the id of the sample, in dataset order."""


@dataclass(frozen=True)
class Verdicts:
    """The verdicts on one set.

    Attributes:
        metric: What judged.
        ids: Of the samples, in dataset order.
        sufficient_statistics: (units, sums) of the metric.
        right: (things,) whether each thing that can be right or wrong is right.
    """

    metric: AnswerMetric
    ids: tuple[str, ...]
    sufficient_statistics: Statistics
    right: npt.NDArray[np.bool_]


def read_lines(run: Run) -> dict[str, Lines]:
    """The verdicts on each set of a run, by the set's name.

    Raises:
        UserError: The file is missing, torn or foreign.
    """
    rows: list[tuple[int, str, str, ScoredAnswer]] = []
    try:
        with (run.folder / FILE).open(encoding="utf-8") as file:
            for text in file:
                rows.append(_row(json.loads(text), run))
    except FileNotFoundError as error:
        raise UserError(f"{FILE} is missing") from error
    except OSError as error:
        raise UserError(f"{FILE} cannot be read ({error.strerror or error})") from error
    except (*FOREIGN, RecursionError) as error:
        raise UserError(f"{FILE} is torn or foreign at line {len(rows) + 1}") from error
    sets: dict[str, dict[str, ScoredAnswer]] = {}
    for _, name, sample, line in sorted(rows, key=lambda row: row[0]):
        lines = sets.setdefault(name, {})
        if sample in lines:
            raise UserError(f"{FILE} holds the sample {sample} twice")
        lines[sample] = line
    return dict(sets)


def _row(told: dict[str, Any], run: Run) -> tuple[int, str, str, ScoredAnswer]:
    """Index into the dataset, name of the set, id and verdict of a record."""
    labels = told.get("labels") or {}
    name = str(labels.get("task", "")) if run.tasks else run.dataset
    parsed, answer, score = (_answer(told.get(key)) for key in JUDGED)
    scored = ScoredAnswer(parsed, answer, score, labels)
    return int(told["index"]), name, str(told["id"]), scored


def _answer(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def judge_again(part: Run, lines: Lines, order: Iterable[str] | None = None) -> Verdicts:
    """The verdicts on one set, as its metric counts them.

    Args:
        part: The run, or the task of a group.
        lines: Its verdicts.
        order: Ids in the order wanted; None for that of the lines.

    Raises:
        UserError: The metric is unknown, or does not give the primary metric that the run tells.
    """
    if not part.metric:
        raise UserError("metrics.json names no metric")
    try:
        metric = find_metric(part.metric)
    except LookupError as error:
        raise UserError(str(error).rstrip(".")) from error
    ids = tuple(lines if order is None else order)
    try:
        frame = to_frame(lines[sample] for sample in ids)
        sufficient_statistics = metric.sufficient_statistics(frame).to_numpy(dtype=np.float64)
        right = metric.right(frame).to_numpy(dtype=np.bool_)
        agrees = same(float(metric.primary_value(sufficient_statistics.sum(0))), part.value)
    except FOREIGN as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{part.metric} cannot count {FILE} again ({reason})") from error
    if not agrees:
        raise UserError(f"{FILE} gives another {part.primary_metric} than metrics.json tells")
    return Verdicts(metric, ids, sufficient_statistics, right)


def same(value: float, told: float | None) -> bool:
    """Whether a number is the one told; older runs told it in single precision."""
    return told is not None and bool(np.isclose(value, told, rtol=1e-5, atol=1e-6))
