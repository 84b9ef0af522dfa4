"""How much time and memory does a large file take? `python -m benchmarks.streaming.bench`.

Each number is measured in a new process, with nothing of the file in the system's cache. Writes
`results.json` beside this file.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import multiprocessing
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAME = "Large"
SIDES = range(900, 1700, 50)  # pixels of square images of noise: JPEG files of 1 to 3.2 MB
READ = 200  # rows that a process reads


def write(path: Path, gigabytes: float) -> None:
    """Write a multiple-choice file: each row has an image, four options and a long hint."""
    import numpy as np
    from PIL import Image

    images = []
    for side in SIDES:
        pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        jpeg = io.BytesIO()
        Image.fromarray(pixels).save(jpeg, "JPEG", quality=95)
        images.append(base64.b64encode(jpeg.getvalue()).decode())
    hint = 'Some "context"\nof several\tlines. ' * 20
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["index", "image", "question", "hint", *"ABCD", "answer"])
        number = 0
        while path.stat().st_size < gigabytes * 1e9:
            image = images[number % len(images)]
            options = ["left", "right", "None", f"not {number}"]
            table.writerow([number, image, "Where is it?", hint, *options, "B"])
            number += 1


def run_step(step: str, folder: Path) -> dict[str, float]:
    """Do one step in this process: its seconds, milliseconds a row and peak of memory."""
    start = time.perf_counter()
    from ivcp.datasets.tsv import TsvBenchmark
    from ivcp.datasets.tsv_rows import RowFile

    numbers = {"seconds": time.perf_counter() - start}
    dataset = TsvBenchmark(name=NAME, task="multiple_choice", url="", root=str(folder))
    source: Any = RowFile(folder / f"{NAME}.tsv") if step == "rows" else dataset
    if step != "import":
        start, cpu = time.perf_counter(), time.process_time()
        numbers["rows"] = len(source)
        numbers["seconds"] = time.perf_counter() - start
        numbers["cpu_seconds"] = time.process_time() - cpu
    if step in ("rows", "samples"):
        start = time.perf_counter()
        for number in random.Random(0).choices(range(len(source)), k=READ):
            source[number]
        numbers["ms_each"] = 1e3 * (time.perf_counter() - start) / READ
    return {**numbers, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def in_new_process(step: str, folder: Path) -> dict[str, float]:
    """Do one step in a new process, after the file has left the system's cache."""
    with (folder / f"{NAME}.tsv").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    command = [sys.executable, "-m", __spec__.name, "--step", step, "--folder", str(folder)]
    numbers: dict[str, float] = json.loads(subprocess.check_output(command))
    return numbers


def repeat_step(step: str, folder: Path, repeats: int) -> dict[str, float]:
    """Medians of a step in several processes; the highest peak of memory."""
    runs = []
    for _ in range(repeats):
        if step == "first start":
            (folder / f"{NAME}.tsv.index.json").unlink(missing_ok=True)
        runs.append(in_new_process(step, folder))
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {**medians, "peak_mb": max(run["peak_mb"] for run in runs), "repeats": repeats}


def main() -> None:
    """Run everything and write the file.

    The file is written in another process, since a process starts with the peak of its parent.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="holds the file while this runs")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run_step(arguments.step, arguments.folder)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        path = Path(name) / f"{NAME}.tsv"
        writer = multiprocessing.get_context("spawn").Process(
            target=write, args=(path, arguments.gigabytes)
        )
        writer.start()
        writer.join()
        os.sync()
        results: dict[str, Any] = {
            "machine": f"{os.cpu_count()} cores of {platform.machine()}",
            "python": platform.python_version(),
            "gigabytes": path.stat().st_size / 1e9,
        }
        for step in ("import", "first start", "second start", "rows", "samples"):
            results[step] = repeat_step(step, path.parent, arguments.repeats)
            print(step, json.dumps(results[step]), flush=True)
    (Path(__file__).parent / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
