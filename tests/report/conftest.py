"""Run folders made up for the tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from made_results import write_predictions

from ivcp.core.metric import AnswerMetric, ScoredAnswer, class_path
from ivcp.report.comparison import Entry, make_entries, with_statistics
from ivcp.report.paired import pair_entries
from ivcp.results.load import find_runs
from ivcp.results.prediction import Prediction
from ivcp.results.schema import Results


@pytest.fixture(scope="session")
def make_run_in() -> Callable[..., Path]:
    """Writes a run folder below another and gives it."""

    def make(
        parent: Path,
        name: str,
        *,
        pruner: str,
        value: float | None,
        model: str = "tiny",
        dataset: str = "shapes",
        ratio: float | None = 0.5,
        layers: tuple[int, ...] = (),
        primary_metric: str = "acc@0.5",
        metric: dict[str, Any] | None = None,
        values: dict[str, float | None] | None = None,
        samples: int = 200,
        date: str = "2026-01-01",
        **run: Any,
    ) -> Path:
        unpruned = pruner == "none"
        results = Results.model_validate(
            {
                "metrics": {primary_metric: value, "unparsed_rate": 0.25, **(values or {})},
                "efficiency": {
                    "kv_cache_bytes": 1_000_000,
                    "kv_cache_ratio": 0.4,
                    "prefill_flops_ratio": 1.0 if unpruned else 0.6,
                    "language_prefill_ms": {"median": 30.0, "q1": 28.0, "q3": 33.0},
                    "pruning_overhead_ms": {"median": 1.0, "q1": 1.0, "q3": 1.0},
                    "decode_ms_per_token": {"median": 7.0, "q1": 7.0, "q3": 7.0},
                },
                "tokens": {
                    "visual": 144,
                    "keep_ratio": 1.0 if unpruned else ratio,
                    "layer_average_ratio": 0.5,
                },
                "run": {
                    "model": model,
                    "pruner": pruner,
                    "dataset": dataset,
                    "ratio": ratio,
                    "layers": layers,
                    "unpruned": unpruned,
                    "samples": samples,
                    "date": date,
                    "config": {},
                    "primary_metric": {"name": primary_metric, "value": value, **(metric or {})},
                    **run,
                },
            }
        )
        folder = parent / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(results.text())
        return folder

    return make


@pytest.fixture
def make_run(make_run_in: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder below `tmp_path` and gives it."""
    return partial(make_run_in, tmp_path)


@pytest.fixture
def make_scored(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a run folder with predictions, and with the values that its metric gives for them."""

    def make(
        name: str, metric: AnswerMetric, answers: Sequence[ScoredAnswer], **options: Any
    ) -> Path:
        values = metric.values(answers)
        tasks: dict[str, AnswerMetric] = getattr(metric, "tasks", {})
        folder = make_run(
            name,
            value=values[metric.primary_metric],
            values={key: None if value != value else value for key, value in values.items()},
            primary_metric=metric.primary_metric,
            metric={
                "unit": metric.unit(metric.primary_metric),
                "metric": "" if tasks else class_path(metric),
            },
            tasks={
                task: {
                    "name": task_metric.primary_metric,
                    "unit": task_metric.unit(task_metric.primary_metric),
                    "metric": class_path(task_metric),
                }
                for task, task_metric in tasks.items()
            },
            samples=len(answers),
            **options,
        )
        write_predictions(
            folder,
            [
                Prediction(
                    index=index,
                    id=f"sample-{index}",
                    labels=dict(answer.labels),
                    parsed=answer.parsed,
                    answer=answer.answer,
                    score=answer.score,
                )
                for index, answer in enumerate(answers)
            ],
        )
        return folder

    return make


@pytest.fixture
def read_entries(tmp_path: Path) -> Callable[..., list[Entry]]:
    """Reads the entries of all runs below `tmp_path`."""

    def read(folder: Path = tmp_path, *, paired: bool = False) -> list[Entry]:
        entries = make_entries(find_runs([folder])[0])
        return with_statistics(entries, pair_entries(entries)[0]) if paired else entries

    return read
