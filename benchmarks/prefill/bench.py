"""What a prefill pays for choosing tokens: operations that the host dispatches, and CPU time.

`python -m benchmarks.prefill.bench NAME` measures this checkout, adds it to results.json as NAME,
and prints all that is there. On a GPU each operation costs the host some microseconds, so their
number is what a stage costs there, whatever the size of the images.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch.utils._python_dispatch import TorchDispatchMode

from ivcp import pruned
from ivcp.engine import checks
from ivcp.engine.stopwatch import Stopwatch
from ivcp.measure.devices import machine_name
from ivcp.testing import SMALL, prompts

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results.json")
METHODS = [
    "uniform", "random", "ivc", "foreground", "ivcp", "ivcp_two_pass", "fastv", "sparsevlm",
    "pyramiddrop", "dart", "divprune", "visionzip", "holov", "pool",
]  # fmt: skip
LAYERS = 8
SIDE = 20  # visual tokens along the side of an image
BATCHES = {  # prompts that differ in content alone, and prompts of unequal texts and images
    "1": [[5, (SIDE, SIDE), 30]],
    "8 alike": [[5, (SIDE, SIDE), 1 + number, 29 - number] for number in range(8)],
    "8 unlike": [[5, (SIDE - number, SIDE), 30 - number] for number in range(8)],
}


class Dispatched(TorchDispatchMode):
    """Counts operations; views launch nothing on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts["views" if func.is_view else "operations"] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_stages(mode: Dispatched) -> Any:
    """Count what the engine times: choosing tokens and dropping the others."""
    running = Stopwatch.running

    @contextmanager
    def counting(self: Stopwatch, device: torch.device) -> Any:
        with mode, running(self, device):
            yield

    Stopwatch.running = counting  # type: ignore[method-assign]
    try:
        yield
    finally:
        Stopwatch.running = running  # type: ignore[method-assign]


def pruner_of(name: str) -> Any:
    """A method as configured."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [f"pruner={name}", "ratio=0.5"])
    return instantiate(cfg.pruner, _convert_="all").fitted("", LAYERS)


def measure(model: Any, name: str, batch: str, repeats: int) -> dict[str, float]:
    """Operations and milliseconds of the stages, and operations beyond an unpruned prefill."""
    inputs = prompts(*BATCHES[batch]).inputs
    whole, stages, plain = Dispatched(), Dispatched(), Dispatched()
    pruner = pruner_of(name)
    with torch.no_grad():
        model(**inputs, use_cache=True)
        with plain:
            model(**inputs, use_cache=True)
        with pruned(model, pruner) as session:
            model(**inputs, use_cache=True)
            with whole:
                model(**inputs, use_cache=True)
            with counted_stages(stages):
                model(**inputs, use_cache=True)
            times = []
            for _ in range(repeats):
                model(**inputs, use_cache=True)
                times.append(1000 * session.overhead_seconds)
    return {
        "stage_operations": stages.counts["operations"],
        "stage_views": stages.counts["views"],
        "operations_beyond_unpruned": whole.counts["operations"] - plain.counts["operations"],
        "stage_ms": round(min(times), 2),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="of this checkout in results.json")
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.name:
        checks.thorough = lambda device: False  # of values, which a GPU's host never reads
        model = SMALL["qwen25vl"].model(layers=LAYERS)
        results[options.name] = {
            "machine": machine_name(),
            "torch": torch.__version__,
            "methods": {
                name: {batch: measure(model, name, batch, options.repeats) for batch in BATCHES}
                for name in options.methods
            },
        }
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    for name, result in results.items():
        print(f"\n{name}\n\n| method | {' | '.join(BATCHES)} |\n|---|{'---|' * len(BATCHES)}")
        for method, batches in result["methods"].items():
            cells = (
                f"{n['stage_operations']} ({n['operations_beyond_unpruned']}), {n['stage_ms']} ms"
                for n in batches.values()
            )
            print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
