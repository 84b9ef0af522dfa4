"""How long does a report of many runs take? `python -m benchmarks.reports.bench`.

Evaluates the packaged model once, copies the run folder under the names of other models, datasets
and methods, with other numbers, and times the report on the copies, and a browser that opens its
page where playwright and chromium are installed. Also measures a page of 25 runs with 40 samples.
Writes `results.json` beside this file.
"""

from __future__ import annotations

import argparse
import base64
import copy
import io
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

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODELS = ("qwen25vl", "qwen2vl", "llava15", "internvl25")
DATASETS = ("refcoco_testA", "pope", "mmstar", "textvqa_val", "ai2d_test")
PRUNERS = ("ivcp", "ivc", "foreground", "random", "uniform", "fastv", "sparsevlm")
RATIOS = (0.8, 0.7, 0.5, 0.3, 0.1)
LAYERS = (2, 8, 16)
REPORT, VIEW = ("ivcp.report",), ("ivcp.cli.main", "view")
REPORTS = {
    "tables, plots and page": (*REPORT, "--no-paired"),
    "tables alone": (*REPORT, "--no-paired", "--tables"),
    "page alone, with intervals and samples": (*VIEW, "--no-browser"),
}
CHROMIUM = "/usr/bin/chromium"
GALLERY = 25
"""Runs of the page with samples."""


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
        results["browser"] = browser_seconds(folder / "out/report.html", options.repeats)
        results["gallery"] = gallery(folder)
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def seconds(folder: Path, flags: tuple[str, ...], repeats: int) -> dict[str, float]:
    """Seconds of the command: least, median and most by the wall clock, least of CPU."""
    command = [sys.executable, "-m", *flags, str(folder / "runs"), "--out", str(folder / "out")]
    wall, cpu = [], []
    for _ in range(repeats):
        wall_start, cpu_start = time.perf_counter(), children_seconds()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        wall.append(time.perf_counter() - wall_start)
        cpu.append(children_seconds() - cpu_start)
    return {"least": min(wall), "median": median(wall), "most": max(wall), "least_cpu": min(cpu)}


def browser_seconds(page: Path, repeats: int) -> dict[str, float] | None:
    """Seconds until a page is ready, and those of its main thread; None without a browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if not Path(CHROMIUM).is_file():
        return None
    wall, busy = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(repeats):
            tab = browser.new_page(viewport={"width": 1400, "height": 900})
            client = tab.context.new_cdp_session(tab)
            client.send("Performance.enable", {"timeDomain": "threadTicks"})
            start = time.perf_counter()
            tab.goto(page.as_uri(), timeout=120_000)
            tab.wait_for_selector("html[data-ready]", timeout=120_000)
            wall.append(time.perf_counter() - start)
            metrics = client.send("Performance.getMetrics")["metrics"]
            busy += [each["value"] for each in metrics if each["name"] == "TaskDuration"]
            tab.close()
        browser.close()
    return {"least": min(wall), "median": median(wall), "least_cpu": min(busy)}


def gallery(folder: Path) -> dict[str, float]:
    """Bytes and seconds of a page of some runs with 40 samples of 640 x 480 pixels each."""
    copies = folder / "gallery"
    for number, source in enumerate(sorted((folder / "runs").iterdir())[:GALLERY]):
        run = copies / source.name
        shutil.copytree(source, run)
        metrics = json.loads((run / "metrics.json").read_text())
        metrics["run"] |= {"model": MODELS[0], "dataset": DATASETS[0], "layers": [number]}
        (run / "metrics.json").write_text(json.dumps(metrics))
        write_samples(run / "predictions.jsonl")
    photos = folder / "photos.tsv"
    if not photos.exists():
        write_photos(photos)
    for run in copies.iterdir():
        metrics = json.loads((run / "metrics.json").read_text())
        metrics["run"]["config"]["dataset"] = {
            "_target_": "ivcp.datasets.tsv.TsvBenchmark", "name": "photos", "task": "open_ended",
            "file": str(photos), "verify": False,
        }  # fmt: skip
        (run / "metrics.json").write_text(json.dumps(metrics))
    command = [sys.executable, "-m", *VIEW, str(copies), "--out", str(copies), "--no-browser"]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    size = (copies / "report.html").stat().st_size
    return {"runs": GALLERY, "bytes": size, "seconds": time.perf_counter() - start}


def write_photos(path: Path) -> None:
    """40 images as noisy as photos, in a file of questions."""
    rng = np.random.default_rng(0)
    lines = ["index\timage\tquestion\tanswer"]
    for index in range(40):
        coarse = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        pixels = np.asarray(image, dtype=np.int16) + rng.normal(0, 12, (480, 640, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, format="JPEG", quality=90)
        lines.append(f"{index}\t{base64.b64encode(file.getvalue()).decode()}\tWhat is it?\tblur")
    path.write_text("\n".join(lines) + "\n")


def write_samples(path: Path) -> None:
    """Answers to 40 questions about 576 visual tokens, a random half of which was kept."""
    line = json.loads(path.read_text().splitlines()[0])
    rng = random.Random(str(path))
    grid = {"start": 5, "rows": 24, "columns": 24}
    lines = []
    for index in range(40):
        kept = sorted(rng.sample(range(5, 581), 288))
        lines.append(
            line
            | {
                "index": index, "id": str(index), "task": "open_ended", "answer": "blur",
                "score": float(rng.random() < 0.7), "image_size": [640, 480], "visual_tokens": 576,
                "kept_tokens": 288, "kept": kept, "images": [{"grids": [grid]}],
                "reasons": {"ivc": kept[:60], "foreground": kept[60:]},
                "question": "What is it?", "parsed": "blur",
            }
        )  # fmt: skip
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


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
    """Copy a run under other names and with other answers, one run unpruned for each pair.

    Returns:
        How many runs there are now.
    """
    rng = random.Random(0)
    pruned = product(RATIOS, LAYERS, PRUNERS)
    methods = [("none", 1.0, 16), *((name, ratio, layer) for ratio, layer, name in pruned)]
    combinations = list(islice(product(methods, MODELS, DATASETS), count))
    report = json.loads((source / "metrics.json").read_text())
    lines = [json.loads(line) for line in (source / "predictions.jsonl").open()]
    for number, ((pruner, ratio, layer), model, dataset) in enumerate(combinations):
        run = folder / f"{number:04d}"
        run.mkdir(parents=True)
        right = [rng.random() < 0.95 * ratio**0.1 for _ in lines]
        answers = [
            {**line, "score": float(hit), "parsed": line["answer"] if hit else None}
            for line, hit in zip(lines, right, strict=True)
        ]
        value = sum(right) / len(right)
        changed = rewrite(report, model, dataset, pruner, ratio, layer, value)
        (run / "metrics.json").write_text(json.dumps(changed, indent=2))
        text = "".join(json.dumps(answer) + "\n" for answer in answers)
        (run / "predictions.jsonl").write_text(text)
    return len(combinations)


def rewrite(
    report: dict[str, Any],
    model: str,
    dataset: str,
    pruner: str,
    ratio: float,
    layer: int,
    value: float,
) -> dict[str, Any]:
    """The contents of `metrics.json` as another run could have them."""
    report = copy.deepcopy(report)
    run = report["run"]
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
