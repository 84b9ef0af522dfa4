"""How long does a report of many runs take? `python -m benchmarks.reports.bench`.

Evaluates the packaged model once, copies the run folder under the names of other models, datasets
and methods, with other numbers, and times the report on the copies. Writes `results.json` beside
this file.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import islice, product
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODELS = ("qwen25vl", "qwen2vl", "llava15", "internvl25")
DATASETS = ("refcoco_testA", "pope", "mmstar", "textvqa_val", "ai2d_test")
PRUNERS = ("ivcp", "ivc", "foreground", "random", "uniform", "fastv", "sparsevlm")
RATIOS = (0.8, 0.7, 0.5, 0.3, 0.1)
LAYERS = (2, 8, 16)
REPORTS = {
    "tables, plots and page": ("--no-paired",),
    "tables alone": ("--no-paired", "--tables"),
}


def main() -> None:
    """Time each kind of report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        count = copy_runs(evaluate(folder / "run"), folder / "runs", options.runs)
        results: dict[str, Any] = {"runs": count, "python": platform.python_version()}
        results["seconds"] = {
            kind: seconds(folder, flags, options.repeats) for kind, flags in REPORTS.items()
        }
        results["load"] = os.getloadavg()[0]
        results["bytes"] = {
            path.name: path.stat().st_size for path in sorted((folder / "out").iterdir())
        }
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def seconds(folder: Path, flags: tuple[str, ...], repeats: int) -> dict[str, float]:
    """Seconds of the command: least, median and most by the wall clock, least of CPU."""
    command = [sys.executable, "-m", "ivcp.report", str(folder / "runs")]
    command += ["--out", str(folder / "out"), *flags]
    wall, cpu = [], []
    for _ in range(repeats):
        wall_start, cpu_start = time.perf_counter(), children_seconds()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        wall.append(time.perf_counter() - wall_start)
        cpu.append(children_seconds() - cpu_start)
    return {"least": min(wall), "median": median(wall), "most": max(wall), "least_cpu": min(cpu)}


def children_seconds() -> float:
    """CPU seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def evaluate(folder: Path) -> Path:
    """Evaluate 20 samples with the packaged model."""
    overrides = [
        "pruner=ivcp", "ratio=0.5", "limit=20", "trainer=cpu", "logger=none", "workers=0",
        "pictures=0", "generation.max_new_tokens=2", f"hydra.run.dir={folder}",
    ]  # fmt: skip
    subprocess.run([sys.executable, ROOT / "run.py", *overrides], check=True, capture_output=True)
    return folder


def copy_runs(source: Path, folder: Path, count: int) -> int:
    """Copy a run under other names, one of them unpruned for each pair; return how many."""
    rng = random.Random(0)
    pruned = product(RATIOS, LAYERS, PRUNERS)
    methods = [("none", 1.0, 16), *((name, ratio, layer) for ratio, layer, name in pruned)]
    combinations = list(islice(product(methods, MODELS, DATASETS), count))
    report = json.loads((source / "metrics.json").read_text())
    for number, ((pruner, ratio, layer), model, dataset) in enumerate(combinations):
        run = folder / f"{number:04d}"
        run.mkdir(parents=True)
        changed = rewrite(report, model, dataset, pruner, ratio, layer, rng.uniform(0.95, 1.0))
        (run / "metrics.json").write_text(json.dumps(changed, indent=2))
        shutil.copy(source / "predictions.jsonl", run)
    return len(combinations)


def rewrite(
    report: dict[str, Any],
    model: str,
    dataset: str,
    pruner: str,
    ratio: float,
    layer: int,
    factor: float,
) -> dict[str, Any]:
    """The contents of `metrics.json` as another run could have them."""
    report = copy.deepcopy(report)
    run = report["run"]
    value = 0.9 * ratio**0.1 * factor
    run |= {"model": model, "dataset": dataset, "pruner": pruner, "ratio": ratio}
    run |= {"layers": [] if pruner == "none" else [layer], "unpruned": pruner == "none"}
    run["config"] |= {"ratio": ratio}
    run["config"]["pruner"] |= {"keep_ratio": ratio, "layer": layer}
    run["primary_metric"]["value"] = report["metrics"][run["primary_metric"]["name"]] = value
    report["tokens"] |= {"keep_ratio": ratio, "layer_average_ratio": (1 + ratio) / 2}
    report["efficiency"] |= {"kv_cache_ratio": ratio, "prefill_flops_ratio": (1 + ratio) / 2}
    return report


if __name__ == "__main__":
    main()
