"""Is this checkout slower than another one? `python -m benchmarks.versions.bench CHECKOUT`.

Two processes, one for each checkout, hold the same random model and take turns, so that whatever
else the machine does affects both. Writes `results.json` and `results.md` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ivcp.results.schema import Quartiles

HERE = Path(__file__).parent
METHODS = {
    "ivcp": "IVCPrune(keep_ratio=0.5, layer=7)",
    "fastv": "FastV(keep_ratio=0.5, layer=7)",
    "sparsevlm": "SparseVLM(keep_ratio=0.5, layers=(3, 6, 9))",
    "none": "NoPruning()",
}
WORKER = """
import sys
import torch
from ivcp import pruned
from ivcp.measure.timing import timed_phases
from ivcp.models import find_family
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.testing import SMALL, prompts, random_model
layers, hidden, side = map(int, sys.argv[1:])
rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
text = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_attention_heads": 8,
        "rope_parameters": rotary, "initializer_range": 0.02}
vision = {"depth": 1, "fullatt_block_indexes": [0], "out_hidden_size": hidden}
model = random_model(SMALL["qwen25vl"].config(layers=layers, text=text, vision=vision))
family, inputs = find_family(model), prompts([2, (side, side), 30]).inputs
parts = family.vision(model), family.decoder(model)
for line in sys.stdin:
    with torch.no_grad(), pruned(model, eval(line)) as session:
        with timed_phases(model, *parts) as phases:
            model(**inputs, use_cache=True, logits_to_keep=1)
    print(phases.decoder, session.overhead_seconds, flush=True)
"""
"""Uses nothing that older checkouts lack."""


class Worker:
    """One checkout, ready to measure.

    Args:
        checkout: Its folder.
        sizes: Layers and width of the model, tokens along the image's side.
    """

    def __init__(self, checkout: Path, sizes: list[int]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *map(str, sizes)],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, method: str) -> tuple[float, float]:
        """Seconds of a language prefill, pruning included, and of pruning alone."""
        self.process.stdin.write(METHODS[method] + "\n")
        self.process.stdin.flush()
        total, pruning = map(float, self.process.stdout.readline().split())
        return total, pruning


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="the checkout before a change")
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--side", type=int, default=32, help="visual tokens along the image's side")
    options = parser.parse_args()
    sizes = [options.layers, options.hidden, options.side]
    before, after = Worker(options.checkout.resolve(), sizes), Worker(HERE.parents[1], sizes)
    rows: dict[str, Any] = {}
    for method in METHODS:
        before.measure(method), after.measure(method)  # warm-up
        pairs = []
        for number in range(options.repeats):
            if number % 2:
                pairs.append((before.measure(method), after.measure(method)))
            else:
                new = after.measure(method)
                pairs.append((before.measure(method), new))
        rows[method] = {
            "prefill_ratio": Quartiles.of(new[0] / old[0] for old, new in pairs).model_dump(),
            "overhead_before_ms": Quartiles.of(1e3 * old[1] for old, _ in pairs).model_dump(),
            "overhead_after_ms": Quartiles.of(1e3 * new[1] for _, new in pairs).model_dump(),
        }
    report = {"visual_tokens": options.side**2, "repeats": options.repeats, "methods": rows}
    (HERE / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    lines = [
        "| method | prefill, after / before | pruning overhead before (ms) | after (ms) |",
        "|---|---|---|---|",
    ]
    for method, row in rows.items():
        ratio, old, new = row["prefill_ratio"], row["overhead_before_ms"], row["overhead_after_ms"]
        lines.append(
            f"| {method} | {ratio['median']:.3f} ({ratio['q1']:.3f} to {ratio['q3']:.3f}) "
            f"| {old['median']:.2f} | {new['median']:.2f} |"
        )
    text = "\n".join(lines) + "\n"
    (HERE / "results.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
