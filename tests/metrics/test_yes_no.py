"""Yes and no, against torchmetrics' scores."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torchmetrics.functional.classification import (
    binary_accuracy,
    binary_f1_score,
    binary_precision,
    binary_recall,
)

from ivcp.core.metric import ScoredAnswer
from ivcp.core.types import Sample
from ivcp.metrics.yes_no import YesNoMetrics


def scored(parsed, answers) -> list[ScoredAnswer]:
    return [ScoredAnswer(a, b, float(a == b)) for a, b in zip(parsed, answers, strict=True)]


def test_scores_agree_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    given = torch.randint(0, 2, (101,), generator=generator)
    truth = torch.randint(0, 2, (101,), generator=generator)
    words = ("No", "Yes")
    values = YesNoMetrics().values(scored([words[i] for i in given], [words[i] for i in truth]))
    for name, reference in (
        ("accuracy", binary_accuracy),
        ("precision", binary_precision),
        ("recall", binary_recall),
        ("f1", binary_f1_score),
    ):
        assert values[name] == pytest.approx(float(reference(given, truth)))


def test_none_is_wrong_and_acts_as_no() -> None:
    values = YesNoMetrics().values(scored(["Yes", None, None, "No"], ["Yes", "Yes", "No", "No"]))
    assert values == pytest.approx(
        {"accuracy": 0.5, "precision": 1, "recall": 0.5, "f1": 2 / 3, "unparsed_rate": 0.5}
    )


def test_no_yes_at_all_gives_zero() -> None:
    values = YesNoMetrics().values(scored([None, "No"], ["No", "No"]))
    assert [values[name] for name in ("precision", "recall", "f1")] == [0, 0, 0]


def test_a_foreign_ground_truth_is_refused() -> None:
    image = Image.new("RGB", (8, 8))
    sample = Sample(id="0", task="yes_no", images=(image,), question="?", answer="yes")
    with pytest.raises(ValueError, match="'Yes' or 'No', but got 'yes'"):
        YesNoMetrics().score("Yes", sample)


def test_a_judge_is_asked_only_where_no_word_was_found() -> None:
    metric = YesNoMetrics()
    sample = Sample(id="0", task="yes_no", images=(), question="Is it red?", answer="Yes")
    assert metric.judge_prompt("Yes.", "Yes", sample) is None
    prompt = metric.judge_prompt("It is.", None, sample)
    assert "Is it red?" in prompt
    assert "It is." in prompt
    assert metric.parse_judge_reply("Yes", sample) == ("Yes", 1.0)
    assert metric.parse_judge_reply(" no.", sample) == ("No", 0.0)
    assert metric.parse_judge_reply("Unknown.", sample) == (None, 0.0)
    assert metric.parse_judge_reply("Perhaps", sample) is None
