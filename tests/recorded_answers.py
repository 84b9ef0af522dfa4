"""Recorded answers to VLMEvalKit's benchmarks, as samples with their scores."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path
from typing import Any

from ivcp.core.metric import AnswerMetric, ScoredAnswer
from ivcp.core.types import Sample, Task

GOLDEN = Path(__file__).parent / "metrics" / "golden"
LABELS = ("index", "category", "l2-category", "split", "image_path")


@cache
def recorded(name: str) -> dict[str, Any]:
    """The contents of a golden file."""
    content: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return content


def recordings() -> dict[str, str]:
    """Golden files of rows by the metrics that they name; the rows were scored by the first one.

    A metric can be in one file only.
    """
    files = sorted(path.stem for path in GOLDEN.glob("*.json"))
    pairs = [(metric, name) for name in files for metric in recorded(name).get("metrics", ())]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def accepted(cell: str) -> str | tuple[str, ...]:
    """An answer's cell as a loader reads it: a list is several texts."""
    try:
        value = ast.literal_eval(cell) if cell.startswith("[") else cell
    except (ValueError, SyntaxError):
        return cell
    return tuple(value) if isinstance(value, list) else cell


def sample_of(name: str, cells: dict[str, Any]) -> Sample:
    """The question of a recorded row."""
    task: Task = recorded(name)["task"]
    options = tuple(cells[letter] for letter in "ABCDE" if cells.get(letter) is not None)
    answer = accepted(str(cells["answer"])) if task == "open_ended" else cells["answer"]
    labels = {label: str(cells[label]) for label in LABELS if cells.get(label) is not None}
    return Sample(
        id=labels["index"], task=task, images=(), question=cells["question"], answer=answer,
        options=options, labels=labels,
    )  # fmt: skip


def score_answer(metric: AnswerMetric, sample: Sample, prediction: str) -> ScoredAnswer:
    """What the metric reads from a prediction, and its score."""
    parsed = metric.read(prediction, sample, lambda _: None)
    return ScoredAnswer(parsed, sample.answer, metric.score(parsed, sample), sample.labels)


def score_rows(metric: AnswerMetric, name: str) -> list[ScoredAnswer]:
    """The metric's scores of all rows of a golden file."""
    rows = [row["input"] for row in recorded(name)["rows"]]
    return [score_answer(metric, sample_of(name, row), str(row["prediction"])) for row in rows]
