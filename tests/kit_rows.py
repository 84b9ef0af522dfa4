"""Recorded answers to VLMEvalKit's sets, as samples with their verdicts."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from ivcp.core.metric import AnswerMetric, ScoredAnswer
from ivcp.core.types import Sample, Task

GOLDEN = Path(__file__).parent / "metrics" / "golden"
TASKS: dict[str, Task] = {
    "mcq_vanilla": "multiple_choice", "mmbench_circular": "multiple_choice", "pope": "yes_no",
    "mme": "yes_no", "hallusionbench": "yes_no",
}  # fmt: skip
LABELS = ("index", "category", "l2-category", "split", "image_path")


def recorded(name: str) -> dict[str, Any]:
    """The contents of a golden file."""
    content: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return content


def accepted(cell: str) -> str | tuple[str, ...]:
    """An answer's cell as a loader reads it: a list is several texts."""
    try:
        value = ast.literal_eval(cell) if cell.startswith("[") else cell
    except (ValueError, SyntaxError):
        return cell
    return tuple(value) if isinstance(value, list) else cell


def sample_of(name: str, cells: dict[str, Any]) -> Sample:
    """The question of a recorded row."""
    task = TASKS.get(name, "open_ended")
    options = tuple(cells[letter] for letter in "ABCDE" if cells.get(letter) is not None)
    answer = accepted(str(cells["answer"])) if task == "open_ended" else cells["answer"]
    labels = {label: str(cells[label]) for label in LABELS if cells.get(label) is not None}
    return Sample(
        id=labels["index"], task=task, images=(), question=cells["question"], answer=answer,
        options=options, labels=labels,
    )  # fmt: skip


def judge(metric: AnswerMetric, sample: Sample, prediction: str) -> ScoredAnswer:
    """The metric's verdict."""
    parsed = metric.read(prediction, sample, lambda _: None)
    return ScoredAnswer(parsed, sample.answer, metric.score(parsed, sample), sample.labels)


def judged(metric: AnswerMetric, name: str) -> list[ScoredAnswer]:
    """The metric's verdicts on all rows of a golden file."""
    rows = [row["input"] for row in recorded(name)["rows"]]
    return [judge(metric, sample_of(name, row), str(row["prediction"])) for row in rows]


def values_of(metric: AnswerMetric, verdicts: list[ScoredAnswer]) -> dict[str, float]:
    """What the metric computes from verdicts."""
    return metric.values(verdicts)
