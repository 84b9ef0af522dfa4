"""Yes and no, against VLMEvalKit's answers and torchmetrics' scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_f1_score,
    binary_precision,
    binary_recall,
)

from ivcp.metrics.yes_no import YesNoMetrics, read_yes_no

GOLDEN = json.loads((Path(__file__).parent / "golden/yes_no.json").read_text())


@pytest.mark.parametrize("row", GOLDEN["rows"])
def test_reading_agrees_with_vlmevalkit(row: dict[str, Any]) -> None:
    assert (read_yes_no(row["prediction"]) or "Unknown") == row["extracted"]


@pytest.mark.parametrize("category", GOLDEN["totals"])
def test_scores_agree_with_pope_rating(category: str) -> None:
    metric = YesNoMetrics()
    for row in GOLDEN["rows"]:
        names = row["category"].split(",")
        times = len(names) if category == "Overall" else names.count(category)
        parsed = read_yes_no(row["prediction"])
        metric.update([parsed] * times, [row["answer"]] * times)
    values, expected = metric.compute(), GOLDEN["totals"][category]
    for ours, theirs in (
        ("f1", "Overall"),
        ("accuracy", "acc"),
        ("precision", "precision"),
        ("recall", "recall"),
    ):
        assert 100 * float(values[ours]) == pytest.approx(expected[theirs], abs=1e-4)


def test_scores_agree_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    given = torch.randint(0, 2, (101,), generator=generator)
    truth = torch.randint(0, 2, (101,), generator=generator)
    words = ("No", "Yes")
    metric = YesNoMetrics()
    metric.update([words[i] for i in given], [words[i] for i in truth])
    values = metric.compute()
    for name, reference in (
        ("accuracy", binary_accuracy),
        ("precision", binary_precision),
        ("recall", binary_recall),
        ("f1", binary_f1_score),
    ):
        torch.testing.assert_close(values[name], reference(given, truth))


def test_none_is_wrong_and_acts_as_no() -> None:
    metric = YesNoMetrics()
    metric.update(["Yes", None, None, "No"], ["Yes", "Yes", "No", "No"])
    values = {name: float(value) for name, value in metric.compute().items()}
    assert values == pytest.approx(
        {"accuracy": 0.5, "precision": 1, "recall": 0.5, "f1": 2 / 3, "unparsed_rate": 0.5}
    )


def test_no_yes_at_all_gives_zero() -> None:
    metric = YesNoMetrics()
    metric.update([None, "No"], ["No", "No"])
    values = metric.compute()
    assert [float(values[name]) for name in ("precision", "recall", "f1")] == [0, 0, 0]


def test_a_foreign_ground_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="'Yes' or 'No', but got 'yes'"):
        YesNoMetrics().update(["Yes"], ["yes"])
