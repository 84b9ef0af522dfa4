"""Run folders made up for the tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ivcp.core.metric import AnswerMetric, ScoredAnswer, class_path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder below `tmp_path` and gives it."""

    def make(
        name: str,
        *,
        pruner: str,
        value: float,
        model: str = "tiny",
        dataset: str = "shapes",
        ratio: float = 0.5,
        layer: Any = None,
        primary_metric: str = "acc@0.5",
        samples: int = 200,
        failed: int = 0,
        date: str = "2026-01-01",
        config: dict[str, Any] | None = None,
        told: dict[str, Any] | None = None,
        values: dict[str, float] | None = None,
        **run: Any,
    ) -> Path:
        kept = 1.0 if pruner == "none" else ratio
        content = {
            "metrics": {primary_metric: value, "unparsed_rate": 0.25, **(values or {})},
            "efficiency": {
                "kv_cache_bytes": 1_000_000,
                "kv_cache_ratio": 0.4,
                "prefill_flops_ratio": 1.0 if pruner == "none" else 0.6,
                "language_prefill_ms": {"median": 30.0, "q1": 28.0, "q3": 33.0},
                "pruning_overhead_ms": {"median": 1.0, "q1": 1.0, "q3": 1.0},
                "decode_ms_per_token": {"median": 7.0, "q1": 7.0, "q3": 7.0},
            },
            "tokens": {"visual": 144, "keep_ratio": kept, "layer_average_ratio": 0.5},
            "run": {
                "model": model,
                "pruner": pruner,
                "dataset": dataset,
                "ratio": ratio,
                "layer": layer,
                "samples": samples,
                "failed_samples": failed,
                "date": date,
                "config": config or {},
                "primary_metric": {"name": primary_metric, "value": value, **(told or {})},
                **run,
            },
        }
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(content))
        return folder

    return make


@pytest.fixture
def make_judged(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """Writes a run folder with predictions, and with the values that its metric gives for them."""

    def make(
        name: str,
        metric: AnswerMetric,
        verdicts: Sequence[ScoredAnswer],
        *,
        pruner: str,
        **options: Any,
    ) -> Path:
        values = metric.values(verdicts)
        tasks: dict[str, AnswerMetric] = getattr(metric, "tasks", {})
        folder = make_run(
            name,
            pruner=pruner,
            value=values[metric.primary_metric],
            values=values,
            primary_metric=metric.primary_metric,
            told={
                "unit": metric.unit(metric.primary_metric),
                "metric": None if tasks else class_path(metric),
            },
            tasks={
                name: {
                    "primary_metric": one.primary_metric,
                    "unit": one.unit(one.primary_metric),
                    "metric": class_path(one),
                }
                for name, one in tasks.items()
            },
            samples=len(verdicts),
            **options,
        )
        write_predictions(folder, verdicts)
        return folder

    return make


def write_predictions(folder: Path, verdicts: Iterable[ScoredAnswer]) -> None:
    lines = [
        {
            "index": index,
            "id": f"sample-{index}",
            "labels": dict(one.labels),
            "parsed": one.parsed,
            "answer": one.answer,
            "score": one.score,
        }
        for index, one in enumerate(verdicts)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "predictions.jsonl").write_text(text)
