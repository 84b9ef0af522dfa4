"""What do time and memory of a large file come to? `python -m benchmarks.streaming.bench`.

Each number is had in a process of its own that finds nothing of the file in memory. Writes
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
SIDES = range(900, 1700, 50)  # of square photos of noise, which are JPEG files of 1 to 3.2 MB
READ = 200  # rows of one process


def write(path: Path, gigabytes: float) -> None:
    """A set of multiple choice with a photo, four options and a long hint in each row."""
    import numpy as np
    from PIL import Image

    photos = []
    for side in SIDES:
        noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        photo = io.BytesIO()
        Image.fromarray(noise).save(photo, "JPEG", quality=95)
        photos.append(base64.b64encode(photo.getvalue()).decode())
    hint = 'Some "context"\nof several\tlines. ' * 20
    with path.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(["index", "image", "question", "hint", *"ABCD", "answer"])
        number = 0
        while path.stat().st_size < gigabytes * 1e9:
            photo = photos[number % len(photos)]
            options = ["left", "right", "None", f"not {number}"]
            table.writerow([number, photo, "Where is it?", hint, *options, "B"])
            number += 1


def child(step: str, folder: Path) -> dict[str, float]:
    """Do one step; its seconds, those of a row where rows are read, and the peak of memory."""
    start = time.perf_counter()
    from ivcp.datasets.rows import RowFile
    from ivcp.datasets.tsv import TsvBenchmark

    told = {"seconds": time.perf_counter() - start}
    dataset = TsvBenchmark(name=NAME, task="multiple_choice", url="", root=str(folder))
    source: Any = RowFile(folder / f"{NAME}.tsv") if step == "rows" else dataset
    if step != "import":
        start, busy = time.perf_counter(), time.process_time()
        told["rows"] = len(source)
        told["seconds"] = time.perf_counter() - start
        told["cpu_seconds"] = time.process_time() - busy
    if step in ("rows", "samples"):
        start = time.perf_counter()
        for number in random.Random(0).choices(range(len(source)), k=READ):
            source[number]
        told["ms_each"] = 1e3 * (time.perf_counter() - start) / READ
    return {**told, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def fresh(step: str, folder: Path) -> dict[str, float]:
    """What a new process tells of a step."""
    with (folder / f"{NAME}.tsv").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    command = [sys.executable, "-m", __spec__.name, "--step", step, "--folder", str(folder)]
    told: dict[str, float] = json.loads(subprocess.check_output(command))
    return told


def several(step: str, folder: Path, repeats: int) -> dict[str, float]:
    """Medians of a step in several processes; of memory, the highest."""
    told = []
    for _ in range(repeats):
        if step == "first start":
            (folder / f"{NAME}.tsv.index.json").unlink(missing_ok=True)
        told.append(fresh(step, folder))
    middle = {name: statistics.median(one[name] for one in told) for name in told[0]}
    return {**middle, "peak_mb": max(one["peak_mb"] for one in told), "repeats": repeats}


def main() -> None:
    """Run everything and write the file.

    This process stays small itself, for the peak of a process counts in those that it starts.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="holds the file while this runs")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(child(arguments.step, arguments.folder)))
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
            results[step] = several(step, path.parent, arguments.repeats)
            print(step, json.dumps(results[step]), flush=True)
    (Path(__file__).parent / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
