"""Results of a run that nobody made, with every number that a reader looks at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ivcp.results.load import FinishedRun
from ivcp.results.prediction import Prediction
from ivcp.results.schema import Results

TIMES = {"median": 2.0, "q1": 1.0, "q3": None}
CONFIG = {"model": {"path": "m"}, "dataset": {"size": 3}, "seed": 0, "limit": None}


def made_results(
    value: float | None = 0.75, config: dict[str, Any] = CONFIG, **run: Any
) -> Results:
    """Of a pruned run with the primary metric acc@0.5, unless `run` changes fields of `RunInfo`."""
    return Results.model_validate(
        {
            "metrics": {"acc@0.5": value, "unparsed_rate": 0.125, "recall": None},
            "efficiency": {
                "kv_cache_bytes": 1e6 * (value or 0),
                "kv_cache_ratio": 0.55,
                "prefill_flops_ratio": 0.6,
                "language_prefill_ms": TIMES,
                "pruning_overhead_ms": TIMES,
                "time_to_first_token_ms": TIMES,
                "decode_ms_per_token": TIMES,
                "samples_per_second": 8.0,
                "peak_memory_bytes": 1000,
            },
            "tokens": {"keep_ratio": 0.5, "layer_average_ratio": 0.7},
            "run": {
                "model": "tiny",
                "pruner": "fastv",
                "dataset": "shapes",
                "ratio": 0.5,
                "layers": [2],
                "unpruned": False,
                "config": config,
                "primary_metric": {"name": "acc@0.5", "value": value},
                "seconds": 3.0,
                "samples": 3,
                "failed_samples": 1,
                "device": "cpu",
                "dtype": "float32",
                "attention": "sdpa",
                "versions": {"torch": "2"},
                **run,
            },
        }
    )


def unpruned_results(value: float = 0.5, **run: Any) -> Results:
    """Of an unpruned run."""
    return made_results(
        value, **{"pruner": "none", "ratio": 1.0, "layers": [], "unpruned": True, **run}
    )


def write_run(folder: Path, results: Results) -> FinishedRun:
    """Write a run folder that holds nothing but results."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(results.text(), encoding="utf-8")
    return FinishedRun(folder, results)


def write_predictions(folder: Path, predictions: Iterable[Prediction]) -> None:
    """Write the file of a run's predictions."""
    (folder / "predictions.jsonl").write_text("".join(map(Prediction.line, predictions)))
