"""What every metric promises; a new one is found on disk and tested by existing."""

from __future__ import annotations

import doctest
import importlib
import inspect
import math
import pkgutil
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest
from recorded_answers import recordings, score_rows

import ivcp.metrics
from ivcp.core.metric import AnswerMetric, ScoredAnswer, class_path, find_metric, to_frame
from ivcp.metrics.group_metrics import GroupMetrics

MODULES = [
    importlib.import_module(f"ivcp.metrics.{module.name}")
    for module in pkgutil.iter_modules(ivcp.metrics.__path__)
]
METRICS = [
    member
    for module in MODULES
    for member in vars(module).values()
    if isinstance(member, type)
    and issubclass(member, AnswerMetric)
    and member.__module__ == module.__name__
    and not inspect.isabstract(member)
    and member is not GroupMetrics  # is made of others and tested with them
]
RECORDED = recordings()


def some_answers(metric: type[AnswerMetric]) -> list[ScoredAnswer]:
    """Right, wrong and unparsed answers of the kind that the metric judges.

    Those of a golden file that names the metric, else `ANSWERS` of the metric's own tests (beside
    this file, `test_` and the stem of its module), else letters.
    """
    if name := RECORDED.get(class_path(metric())):
        return score_rows(metric(), name)
    own = f"test_{metric.__module__.rpartition('.')[2]}"
    if find_spec(own) and (answers := getattr(importlib.import_module(own), "ANSWERS", None)):
        return answers
    return [
        ScoredAnswer(("A", "B", None)[n % 3], "AB"[n % 2], float(n % 6 in (0, 1)), {
            "source": ("COCO", "ADE20K")[n % 2], "category": ("ocr,math", "ocr")[n % 2],
        })
        for n in range(13)
    ]  # fmt: skip


def test_recorded_metrics_are_found() -> None:
    assert {class_path(metric()) for metric in METRICS} >= set(RECORDED)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("metric_class", METRICS)
def test_primary_metric_is_one_of_the_values_and_nothing_seen_is_nan(
    metric_class: type[AnswerMetric],
) -> None:
    metric = metric_class()
    values = metric.values([])
    assert metric.primary_metric in values
    assert "unparsed_rate" in values
    assert all(math.isnan(value) for value in values.values())


@pytest.mark.parametrize("metric_class", METRICS)
def test_the_primary_metric_is_made_of_the_statistics(metric_class: type[AnswerMetric]) -> None:
    metric = metric_class()
    answers = some_answers(metric_class)
    frame = to_frame(answers)
    sufficient_statistics = metric.sufficient_statistics(frame).to_numpy()
    value = metric.values(answers)[metric.primary_metric]
    assert 0 <= value <= metric.highest
    assert float(metric.primary_value(sufficient_statistics.sum(0))) == pytest.approx(value)
    both = np.stack([sufficient_statistics.sum(0), 3 * sufficient_statistics.sum(0)])
    assert metric.primary_value(both) == pytest.approx([value, value])
    assert metric.right(frame).dtype == bool


@pytest.mark.parametrize("metric_class", METRICS)
def test_a_metric_is_found_by_its_path(metric_class: type[AnswerMetric]) -> None:
    assert type(find_metric(class_path(metric_class()))) is metric_class


def test_what_is_no_metric_is_not_found() -> None:
    for path in ("ivcp.metrics.nothing.Metric", "ivcp.metrics.anls.nothing", "anls", "json.loads"):
        with pytest.raises(LookupError):
            find_metric(path)
