"""Do two processes finish together on very unequal images? Writes results.json.

`python -m benchmarks.balance.bench`
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from ivcp.evaluation.data import assign, cut

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def write_dataset(folder: Path, samples: int) -> list[int]:
    """Write a file of MDETR's kind and its images, small ones first; return their pixel counts."""
    (folder / "train2014").mkdir()
    draw = random.Random(0)
    sides = sorted(int(min(560, 84 * draw.lognormvariate(0.4, 0.8) + 56)) for _ in range(samples))
    images, annotations = [], []
    for number, side in enumerate(sides):
        name = f"COCO_train2014_{number:012d}.jpg"
        Image.effect_noise((side, side), 60).convert("RGB").save(folder / "train2014" / name)
        images.append(
            {"file_name": name, "width": side, "height": side, "id": number, "caption": "it"}
        )
        annotations.append({"image_id": number, "id": number, "bbox": [1, 1, 20, 20]})
    content = {"images": images, "annotations": annotations}
    (folder / "finetune_refcoco_val.json").write_text(json.dumps(content))
    return [side * side for side in sides]


def measure(folder: Path, samples: int) -> list[float]:
    """Seconds that each of two processes takes."""
    run = folder / "run"
    overrides = [
        "dataset=refcoco_val", f"data.root={folder}", "trainer=ddp_cpu", "logger=none", "workers=0",
        "pictures=0", "batch_size=1", "generation.max_new_tokens=2", f"limit={samples}",
        "baseline=null", f"hydra.run.dir={run}",
    ]  # fmt: skip
    subprocess.run(
        [sys.executable, ROOT / "run.py", *overrides], check=True, capture_output=True, cwd=folder
    )
    seconds = json.loads((run / "metrics.json").read_text())["efficiency"]["seconds_by_process"]
    return [float(value) for value in seconds]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = write_dataset(folder, options.samples)
        repeats = [measure(folder, options.samples) for _ in range(options.repeats)]
    costs = [float(sum(pixels[n] for n in batch)) for batch in cut(len(pixels), 1)]
    expected = [sum(costs[batch] for batch in batches) for batches in assign(costs, 2)]
    half = len(costs) // 2
    result = {
        "samples": options.samples,
        "seconds_by_process": repeats,
        "later_over_earlier": [max(seconds) / min(seconds) for seconds in repeats],
        "median": statistics.median(max(seconds) / min(seconds) for seconds in repeats),
        "expected": max(expected) / min(expected),
        "expected_by_halves": sum(costs[half:]) / sum(costs[:half]),
    }
    (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
