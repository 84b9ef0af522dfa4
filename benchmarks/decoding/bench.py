"""What does an open session cost a decoded token? `python -m benchmarks.decoding.bench`.

Runs of a few decoded tokens inside and outside of a session alternate on the same cache, which is
cropped behind each run. Times are those of the processor in the one thread that does all the work,
so that other processes of the machine count less. Writes `results.json` and `results.md` beside
this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from ivcp import pruned
from ivcp.core.pruner import Pruner
from ivcp.pruners.fastv import FastV
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning
from ivcp.pruners.sparsevlm import SparseVLM
from ivcp.results.schema import Quartiles
from ivcp.testing import SMALL, prompts, random_model

HERE = Path(__file__).parent
SAME, UNPRUNED = "the same cache", "an unpruned cache of the same mean length"
SIDE, TEXT, TOKENS = 24, 30, 8
"""Rows and columns of visual tokens, tokens of text behind the image, and tokens of a run."""
METHODS: dict[str, tuple[Pruner, str]] = {
    "none": (NoPruning(), SAME),
    "ivcp": (IVCPrune(keep_ratio=0.5, layer=14), SAME),
    "fastv": (FastV(keep_ratio=0.5, layer=2, prune_earlier_kv=False), UNPRUNED),
    "sparsevlm": (SparseVLM(keep_ratio=0.5, layers=(2, 6, 15)), UNPRUNED),
}
"""Each method, and what a session of it is compared with outside of any session."""


def narrow_model(attention: str) -> Any:
    """A random Qwen2.5-VL of 28 narrow layers, in which the host's time weighs most."""
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    config = SMALL["qwen25vl"].config(
        attention,
        layers=28,
        text={
            "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4,
            "rope_parameters": rotary, "initializer_range": 0.02,
        },
        vision={"depth": 1, "fullatt_block_indexes": [0], "out_hidden_size": 128},
    )  # fmt: skip
    return random_model(config)


def decode(model: Any, cache: DynamicCache, start: int, pruner: Any = None) -> float:
    """Milliseconds a token, as `generate` calls the model; the cache is as before afterwards.

    Args:
        model: The model.
        cache: The cache of a prefill.
        start: Its logical length.
        pruner: The method whose session is open, or None for no session.
    """
    with torch.no_grad(), nullcontext() if pruner is None else pruned(model, pruner):
        begin = time.thread_time()
        for length in range(start, start + TOKENS):
            model(
                input_ids=torch.full((1, 1), 40),
                attention_mask=torch.ones(1, length + 1, dtype=torch.long),
                position_ids=torch.full((4, 1, 1), length),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        seconds = time.thread_time() - begin
    cache.crop(-TOKENS)
    return 1000 * seconds / TOKENS


def compare(model: Any, name: str, pairs: int) -> dict[str, Any]:
    """Paired times of decoded tokens inside and outside of a session of a method."""
    pruner, baseline = METHODS[name]
    inputs, cache = prompts([2, (SIDE, SIDE), TEXT]).inputs, DynamicCache()
    length = inputs["input_ids"].shape[1]
    with torch.no_grad(), pruned(model, pruner):
        model(**inputs, past_key_values=cache)
    stored = [layer.keys.shape[2] for layer in cache.layers]
    inside = partial(decode, model, cache, length, pruner)
    outside = partial(decode, model, cache, length)
    if baseline == UNPRUNED:
        unpruned, mean = DynamicCache(), round(sum(stored) / len(stored))
        ids = torch.full((1, mean), 40)
        with torch.no_grad():
            model(input_ids=ids, position_ids=torch.arange(mean)[None], past_key_values=unpruned)
        outside = partial(decode, model, unpruned, mean)
    times = []
    for number in range(pairs + 1):
        runs = (inside, outside)[:: 1 if number % 2 else -1]
        times.append(tuple(run() for run in runs)[:: 1 if number % 2 else -1])
    overheads = [100 * (session / plain - 1) for session, plain in times[1:]]  # the first warms up
    return {
        "method": name,
        "baseline": baseline,
        "stored_slots": sorted(set(stored)),
        "pairs": pairs,
        "tokens_a_run": TOKENS,
        "outside_ms": Quartiles.of(plain for _, plain in times[1:]).model_dump(),
        "inside_ms": Quartiles.of(session for session, _ in times[1:]).model_dump(),
        "overhead_percent": Quartiles.of(overheads).model_dump(),
    }


def report(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| method | attention | compared with | outside ms | inside ms | overhead % |"]
    lines.append("|---|---|---|---|---|---|")
    for row in results["rows"]:
        cells = [
            "{median:.2f} [{q1:.2f}, {q3:.2f}]".format(**row[key])
            for key in ("outside_ms", "inside_ms", "overhead_percent")
        ]
        lines.append(
            f"| {' | '.join([row['method'], row['attention'], row['baseline'], *cells])} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every method and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--attention", nargs="+", default=["sdpa", "eager"])
    parser.add_argument("--folder", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for attention in arguments.attention:
        model = narrow_model(attention)
        for name in METHODS:
            row = compare(model, name, arguments.pairs)
            rows.append({"attention": attention, **row})
            print(json.dumps(rows[-1]), flush=True)
    results = {
        "machine": platform.machine() + " CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rows": rows,
    }
    arguments.folder.mkdir(parents=True, exist_ok=True)
    (arguments.folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.folder / "results.md").write_text(report(results))
    print(report(results))


if __name__ == "__main__":
    main()
