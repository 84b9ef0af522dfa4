"""Run folders made up for the tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


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
        headline: str = "acc@0.5",
        samples: int = 200,
        date: str = "2026-01-01",
        config: dict[str, Any] | None = None,
    ) -> Path:
        kept = 1.0 if pruner == "none" else ratio
        content = {
            "metrics": {headline: value, "unparsed_rate": 0.25},
            "efficiency": {
                "kv_cache_bytes": 1_000_000,
                "kv_cache_ratio": 0.4,
                "prefill_flops_ratio": 1.0 if pruner == "none" else 0.6,
                "language_prefill_ms": {"median": 30.0, "q1": 28.0, "q3": 33.0},
                "selector_ms": {"median": 1.0, "q1": 1.0, "q3": 1.0},
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
                "failed_samples": 1,
                "date": date,
                "config": config or {},
                "headline": {"name": headline, "value": value},
            },
        }
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(content))
        return folder

    return make
