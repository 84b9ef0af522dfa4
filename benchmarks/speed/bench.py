"""Does pruning save the time that its FLOPs predict? `python -m benchmarks.speed.bench`.

Pruned and unpruned prefills alternate, so that whatever else the machine does affects both; medians
and quartiles are reported. Writes `results.json` and `results.md` beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ivcp import pruned
from ivcp.bench.pairs import PairedRuns
from ivcp.core.pruner import Pruner
from ivcp.datasets.shapes import Shapes
from ivcp.measure.timing import timed_phases
from ivcp.models import find_family
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.pruners.uniform import UniformGrid
from ivcp.results.schema import Quartiles
from ivcp.testing import SMALL, prompts, random_model

HERE = Path(__file__).parent


def middle_model(layers: int = 12, hidden: int = 1024) -> Any:
    """A random Qwen2.5-VL of middle size with a vision tower of one narrow layer."""
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    config = SMALL["qwen25vl"].config(
        layers=layers,
        text={
            "hidden_size": hidden, "intermediate_size": 3 * hidden, "num_attention_heads": 8,
            "rope_parameters": rotary, "initializer_range": 0.02,
        },
        vision={"depth": 1, "fullatt_block_indexes": [0], "out_hidden_size": hidden},
    )  # fmt: skip
    return random_model(config)


def prompt(side: int) -> dict[str, Tensor]:
    """One square image of `side` x `side` visual tokens between some text."""
    return prompts([2, (side, side), 30]).inputs


def quartiles(values: Iterable[float]) -> dict[str, Any]:
    """Median and quartiles."""
    return Quartiles.of(values).model_dump()


def prefill(model: Any, inputs: dict[str, Tensor], pruner: Pruner) -> tuple[float, float]:
    """Seconds of the language model, and of its pruning overhead alone; `versions.py` calls it."""
    family = find_family(model)
    parts = family.vision(model), family.decoder(model)
    with torch.no_grad(), pruned(model, pruner) as session, timed_phases(model, *parts) as phases:
        model(**inputs, use_cache=True, logits_to_keep=1)
    return phases.decoder, session.overhead_seconds


def compare(model: Any, inputs: dict[str, Tensor], pruner: Pruner, repeats: int) -> dict[str, Any]:
    """Paired prefill times of a pruner and of no pruning, in the language model alone."""
    runs = PairedRuns(model, find_family(model), pruner, inputs)
    pairs = [
        (plain.language_prefill_ms, short.language_prefill_ms, short.pruning_overhead_ms)
        for plain, short in ((pair.unpruned, pair.pruned) for pair in runs.pairs(repeats))
    ]
    return {
        "pruner": type(pruner).__name__,
        "keep_ratio": pruner.keep_ratio,
        "stages": [stage.layer for stage in pruner.stages()],
        "repeats": repeats,
        "unpruned_ms": quartiles(plain for plain, _, _ in pairs),
        "pruned_ms": quartiles(short + overhead for _, short, overhead in pairs),
        "pruning_overhead_ms": quartiles(overhead for _, _, overhead in pairs),
        "overhead_share": quartiles(overhead / plain for plain, _, overhead in pairs),
        "time_ratio": quartiles((short + overhead) / plain for plain, short, overhead in pairs),
        "flops_ratio": runs.counts.prefill_flops_counted.ratio,
    }


def batching(repeats: int) -> dict[str, Any]:
    """Samples per second of whole answers by the packaged model, batch 8 against batch 1."""
    family = Qwen25VL(path=None, dtype="float32")
    model, processor = family.load()
    data = Shapes(task="grounding", size=8)
    samples = [data[index] for index in range(8)]

    def answer(size: int) -> float:
        start = time.perf_counter()
        for batch in range(0, 8, size):
            inputs = family.encode(processor, samples[batch : batch + size]).inputs
            with pruned(model, IVCPrune(keep_ratio=0.5, layer=4)):
                model.generate(**inputs, max_new_tokens=16, do_sample=False)
        return 8 / (time.perf_counter() - start)

    for size in (1, 8):
        answer(size)
    pairs = [(answer(1), answer(8)) for _ in range(repeats)]
    return {
        "repeats": repeats,
        "batch_1_samples_per_second": quartiles(single for single, _ in pairs),
        "batch_8_samples_per_second": quartiles(eight for _, eight in pairs),
        "speedup": quartiles(eight / single for single, eight in pairs),
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"{results['machine']}, {results['threads']} threads, torch {results['torch']}, float32. "
        "Medians [quartiles] of paired repeats.",
        "",
        "| V | method | unpruned ms | pruned ms | overhead ms | overhead / unpruned | time ratio "
        "| FLOPs ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def cell(value: dict[str, float], digits: int) -> str:
        median, q1, q3 = (f"{value[name]:.{digits}f}" for name in ("median", "q1", "q3"))
        return f"{median} [{q1}, {q3}]"

    lines += [
        f"| {row['visual_tokens']} | {row['pruner']} {row['keep_ratio']} before {row['stages']} | "
        f"{cell(row['unpruned_ms'], 0)} | {cell(row['pruned_ms'], 0)} | "
        f"{cell(row['pruning_overhead_ms'], 1)} | {cell(row['overhead_share'], 4)} | "
        f"{cell(row['time_ratio'], 3)} | {row['flops_ratio']:.3f} |"
        for row in results["prefill"]
    ]
    batch = results["batching"]
    lines += [
        "",
        f"Batch 8 answers {cell(batch['speedup'], 2)} times as many samples per second as batch 1 "
        f"({cell(batch['batch_8_samples_per_second'], 1)} against "
        f"{cell(batch['batch_1_samples_per_second'], 1)}; packaged model, IVC-Prune 0.5).",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run everything and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--sides", type=int, nargs="+", default=[32])
    arguments = parser.parse_args()
    model = middle_model()
    make: list[Callable[[], Pruner]] = [
        lambda: IVCPrune(keep_ratio=0.5, layer=7),
        lambda: UniformGrid(keep_ratio=0.5, layer=7),
        lambda: FastV(keep_ratio=0.5, layer=7),
        lambda: SparseVLM(keep_ratio=0.5, layers=(3, 6, 9)),
    ]
    rows = []
    for side in arguments.sides:
        inputs = prompt(side)
        for build in make:
            row = compare(model, inputs, build(), arguments.repeats)
            rows.append({"visual_tokens": side**2, **row})
            print(json.dumps(rows[-1]), flush=True)
    results = {
        "machine": platform.machine() + " CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "prefill": rows,
        "batching": batching(arguments.repeats),
    }
    (HERE / "results.json").write_text(json.dumps(results, indent=1))
    (HERE / "results.md").write_text(report(results))
    print(report(results))


if __name__ == "__main__":
    main()
