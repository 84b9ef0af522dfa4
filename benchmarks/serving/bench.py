"""What does pruning save a server? `python -m benchmarks.serving.bench`, where vLLM is installed.

A random Qwen2.5-VL of middle size, one image a prompt, requests that arrive at once; caches are
off, so that every request pays for its image. Settings take turns, so that whatever else the
machine does affects all of them; CPU seconds of the process say more than wall time on a shared
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(
    VLLM_CPU_KVCACHE_SPACE="2", VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_NO_USAGE_STATS="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1",
)  # fmt: skip
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ivcp
from ivcp.datasets.scenes import make_scene
from ivcp.integrations.vllm.plugin import hf_overrides, register

HERE = Path(__file__).parent
TINY = Path(ivcp.__file__).parent / "models" / "tiny"
SIDE = 24  # visual tokens along an image
TOKENS = 8  # of an answer
PROMPT = (
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is in the picture?"
    "<|im_end|>\n<|im_start|>assistant\n"
)
SETTINGS: dict[str, dict[str, Any]] = {
    "unpruned": {},
    "uniform 0.5": {"pruner": "uniform", "keep_ratio": 0.5},
    "uniform 0.25": {"pruner": "uniform", "keep_ratio": 0.25},
    "divprune 0.5": {"pruner": "divprune", "keep_ratio": 0.5},
    "divprune 0.25": {"pruner": "divprune", "keep_ratio": 0.25},
}


def checkpoint(folder: Path) -> Path:
    """A random model of 8 layers, 512 wide, with the packaged model's tower and tokenizer."""
    from transformers import AutoConfig

    from ivcp.testing.small import random_model

    settings = json.loads((TINY / "config.json").read_text())
    settings["text_config"] |= {
        "hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8,
        "num_key_value_heads": 2, "rope_parameters": {
            "mrope_section": [8, 12, 12], "rope_theta": 1e4, "rope_type": "default",
        },
    }  # fmt: skip
    settings["vision_config"]["out_hidden_size"] = 512
    for path in TINY.glob("*"):
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    (folder / "config.json").write_text(json.dumps(settings))
    sizes = json.loads((TINY / "preprocessor_config.json").read_text())
    sizes["size"]["longest_edge"] = (16 * SIDE) ** 2
    (folder / "preprocessor_config.json").write_text(json.dumps(sizes))
    random_model(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


def prompts(count: int, settings: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Requests with images that no other request has."""
    side = 16 * SIDE
    return [
        {
            "prompt": PROMPT,
            "multi_modal_data": {
                "image": make_scene(0, "train", 100 * number + index).render().resize((side, side))
            },
            "mm_processor_kwargs": {"ivcp": settings},
        }
        for index in range(count)
    ]


def measure(engine: Any, count: int, settings: dict[str, Any], number: int) -> dict[str, float]:
    """One batch of requests that arrive at once."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=TOKENS, min_tokens=TOKENS)
    requests = prompts(count, settings, number)
    wall, cpu = time.perf_counter(), time.process_time()
    outputs = engine.generate(requests, sampling, use_tqdm=False)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    first = [output.metrics.first_token_latency for output in outputs]
    return {
        "requests_per_second": count / wall,
        "first_token_seconds": statistics.median(first),
        "cpu_seconds": cpu,
        "prompt_tokens": len(outputs[0].prompt_token_ids),
    }


def bench(concurrent: list[int], repeats: list[int]) -> list[dict[str, Any]]:
    """A row for each number of requests and each setting."""
    from transformers import AutoConfig
    from vllm import LLM

    register()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoint(Path(folder))
        engine = LLM(
            str(path), hf_overrides=hf_overrides(AutoConfig.from_pretrained(path)),
            dtype="float32", enforce_eager=True, max_model_len=1024, max_num_seqs=32,
            max_num_batched_tokens=2048, limit_mm_per_prompt={"image": 1, "video": 0},
            skip_mm_profiling=True, enable_prefix_caching=False, mm_processor_cache_gb=0,
            disable_log_stats=False,
        )  # fmt: skip
        names, number = list(SETTINGS), 0
        for count, times in zip(concurrent, repeats, strict=True):
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for repeat in range(-1, times):
                for turn in range(len(names)):
                    name, number = names[(turn + repeat) % len(names)], number + 1
                    run = measure(engine, count, SETTINGS[name], number)
                    if repeat >= 0:  # the first one warms up
                        runs[name].append(run)
            base = [run["cpu_seconds"] for run in runs["unpruned"]]
            for name in names:
                row: dict[str, Any] = {"setting": name, "concurrent": count, "repeats": times}
                for key in runs[name][0]:
                    row[key] = statistics.median(run[key] for run in runs[name])
                cpu = [run["cpu_seconds"] for run in runs[name]]
                pairs = zip(cpu, base, strict=True)
                row["cpu_ratio"] = statistics.median(one / whole for one, whole in pairs)
                rows.append(row)
                print(row, flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| requests at once | setting | prompt tokens | requests a second | first token, s "
        "| CPU s | CPU s, of unpruned |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            row["concurrent"], row["setting"], f"{row['prompt_tokens']:.0f}",
            f"{row['requests_per_second']:.2f}", f"{row['first_token_seconds']:.2f}",
            f"{row['cpu_seconds']:.2f}", f"{row['cpu_ratio']:.2f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrent", default="1,8,32")
    parser.add_argument("--repeats", default="9,5,3")
    args = parser.parse_args()
    numbers = [[int(part) for part in text.split(",")] for text in (args.concurrent, args.repeats)]
    rows = bench(*numbers)
    record = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, one thread of {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "transformers", "vllm-cpu")},
        "rows": rows,
    }
    (HERE / "results.json").write_text(json.dumps(record, indent=2) + "\n")
    (HERE / "results.md").write_text(table(rows))


if __name__ == "__main__":
    main()
