"""What every metric promises; a new one is found on disk and tested by existing."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import ivcp.metrics
from ivcp.core.metric import AnswerMetric

MODULES = [
    importlib.import_module(f"ivcp.metrics.{module.name}")
    for module in pkgutil.iter_modules(ivcp.metrics.__path__)
]
METRICS = [
    member
    for module in MODULES
    for member in vars(module).values()
    if isinstance(member, type) and issubclass(member, AnswerMetric) and member is not AnswerMetric
]


def some_answers(metric: type[AnswerMetric]) -> tuple[list[Any], list[Any]]:
    """Right, wrong and unparsed answers of the kind that the metric judges."""
    if metric.__name__ == "GroundingMetrics":
        truth = [(0.0, 0.0, 10.0, float(n)) for n in range(1, 12)]
        return [None if n % 5 == 0 else (0.0, 0.0, 10.0, 6.0) for n in range(11)], truth
    words = ("Yes", "No") if metric.__name__ == "YesNoMetrics" else ("A", "B")
    parsed = [(*words, None)[n % 3] for n in range(11)]
    return parsed, [words[n % 2] for n in range(11)]


def test_all_are_found() -> None:
    assert {metric.__name__ for metric in METRICS} >= {
        "GroundingMetrics",
        "YesNoMetrics",
        "MultipleChoiceMetrics",
    }


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_in_docstrings_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("metric_class", METRICS)
def test_headline_is_one_of_the_values_and_nothing_seen_is_nan(
    metric_class: type[AnswerMetric],
) -> None:
    metric = metric_class()
    metric.update([], [])
    values = metric.compute()
    assert metric.headline in values
    assert "unparsed_rate" in values
    assert all(value.shape == () and value.isnan() for value in values.values())


@pytest.mark.parametrize("metric_class", METRICS)
def test_reset_and_batches(metric_class: type[AnswerMetric]) -> None:
    parsed, answers = some_answers(metric_class)
    whole, parts = metric_class(), metric_class()
    whole.update(parsed, answers)
    parts.update(answers, answers)
    parts.reset()
    for item, answer in zip(parsed, answers, strict=True):
        parts.update([item], [answer])
    torch.testing.assert_close(parts.compute(), whole.compute())


def test_two_processes_give_the_result_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)  # the children import it by name
    gloo_pair = importlib.import_module("gloo_pair")
    cases = [(metric, *some_answers(metric)) for metric in METRICS]
    by_rank = gloo_pair.in_two_processes(cases)
    for number, (metric_class, parsed, answers) in enumerate(cases):
        single = metric_class()
        single.update(parsed, answers)
        for values in by_rank:
            torch.testing.assert_close(values[number], single.compute())
