"""How long does a report of many runs take? `python -m benchmarks.reports.bench`.

Writes made-up run folders, reports them in a process of its own and times that. Leaves
`results.json` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice, product
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
MODELS = ("qwen25vl", "qwen2vl", "llava15", "internvl25")
DATASETS = ("refcoco_testA", "pope", "mmstar", "textvqa_val", "ai2d_test")
PRUNERS = ("ivcp", "ivc", "foreground", "random", "uniform", "fastv", "sparsevlm")
RATIOS = (0.8, 0.7, 0.5, 0.3, 0.1)
LAYERS = (2, 8, 16)
SIDE, SAMPLES = 24, 20
WAYS = {
    "tables, plots and page": ("--no-paired",),
    "tables alone": ("--no-paired", "--tables"),
}


def main() -> None:
    """Time each way of reporting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        count = make_runs(place / "runs", given.runs)
        results: dict[str, Any] = {"runs": count, "python": platform.python_version()}
        results["seconds"] = {
            way: seconds(place, flags, given.repeats) for way, flags in WAYS.items()
        }
        results["load"] = os.getloadavg()[0]
        results["bytes"] = {
            path.name: path.stat().st_size for path in sorted((place / "out").iterdir())
        }
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def seconds(place: Path, flags: tuple[str, ...], repeats: int) -> dict[str, float]:
    """Seconds of the whole command: least, median and most by the wall clock, least of CPU."""
    command = [sys.executable, "-m", "ivcp.report", str(place / "runs")]
    command += ["--out", str(place / "out"), *flags]
    wall, cpu = [], []
    for _ in range(repeats):
        started, used = time.perf_counter(), children_seconds()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - started)
        cpu.append(children_seconds() - used)
    return {"least": min(wall), "median": median(wall), "most": max(wall), "least_cpu": min(cpu)}


def children_seconds() -> float:
    """CPU seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_runs(place: Path, count: int) -> int:
    """Write run folders, an unpruned one for each model and dataset; gives their number."""
    rng = random.Random(0)
    pruned = product(RATIOS, LAYERS, PRUNERS)
    methods = [("none", 1.0, 16), *((name, ratio, layer) for ratio, layer, name in pruned)]
    combinations = islice(product(methods, MODELS, DATASETS), count)
    number = -1
    for number, ((pruner, ratio, layer), model, dataset) in enumerate(combinations):
        folder = place / f"{number:04d}"
        folder.mkdir(parents=True)
        told = metrics(rng, model, dataset, pruner, ratio, layer)
        (folder / "metrics.json").write_text(json.dumps(told, indent=2))
        lines = [json.dumps(record(rng, index, pruner, ratio)) + "\n" for index in range(SAMPLES)]
        (folder / "predictions.jsonl").write_text("".join(lines))
    return number + 1


def metrics(
    rng: random.Random, model: str, dataset: str, pruner: str, ratio: float, layer: int
) -> dict[str, Any]:
    """A made-up `metrics.json`."""
    value = 0.9 * ratio**0.1 * rng.uniform(0.95, 1.0)
    spread = {"median": 400 * ratio**0.4, "q1": 380 * ratio**0.4, "q3": 430 * ratio**0.4}
    return {
        "metrics": {"accuracy": value, "unparsed_rate": 0.0},
        "efficiency": {
            "kv_cache_bytes": 26e6 * ratio,
            "kv_cache_ratio": ratio,
            "prefill_flops_ratio": (1 + ratio) / 2,
            **dict.fromkeys(
                ("language_prefill_ms", "pruning_overhead_ms", "decode_ms_per_token"), spread
            ),
        },
        "tokens": {"visual": SIDE**2, "keep_ratio": ratio, "layer_average_ratio": (1 + ratio) / 2},
        "run": {
            "model": model,
            "pruner": pruner,
            "dataset": dataset,
            "ratio": ratio,
            "layer": layer,
            "config": {
                "model": {"_target_": f"ivcp.models.{model}", "path": None, "dtype": "bfloat16"},
                "dataset": {"_target_": f"ivcp.datasets.{dataset}", "root": "data"},
                "pruner": {
                    "_target_": f"ivcp.pruners.{pruner}",
                    **{f"option_{number}": number for number in range(8)},
                },
                **{f"setting_{number}": number for number in range(20)},
            },
            "versions": {"python": "3.11", "torch": "2.13", "transformers": "5.23"},
            "device": "cpu",
            "dtype": "bfloat16",
            "samples": SAMPLES,
            "failed_samples": 0,
            "date": "2026-01-01T00:00:00+00:00",
            "primary_metric": {"name": "accuracy", "value": value, "unit": "%"},
        },
    }


def record(rng: random.Random, index: int, pruner: str, ratio: float) -> dict[str, Any]:
    """A made-up line of `predictions.jsonl`, with the fields that a report looks at."""
    tokens = SIDE**2
    kept = sorted(rng.sample(range(tokens), round(ratio * tokens)))
    reason = {"ivcp": "ivc", "ivc": "ivc", "foreground": "foreground"}.get(pruner, "kept")
    return {
        "index": index,
        "id": f"sample-{index}",
        "question": f"Question {index}?",
        "answer": "A",
        "prediction": "A",
        "parsed": "A",
        "score": float(rng.random() < 0.9),
        "image_size": [672, 672],
        "images": [{"grids": [{"start": 15, "rows": SIDE, "columns": SIDE}]}],
        "kept": [15 + token for token in kept],
        "reasons": {reason: kept},
    }


if __name__ == "__main__":
    main()
