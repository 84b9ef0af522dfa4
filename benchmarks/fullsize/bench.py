"""What does pruning save at full size? `python -m benchmarks.fullsize.bench`.

Random weights, published sizes. Each repeat runs the unpruned model and every method on the same
inputs in rotated order, so that whatever else the machine does affects all of them. Rows are saved
group by group (model, visual tokens, batch); the same command continues an interrupted run.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import platform
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks.fullsize.methods import LAYER_FRACTION, PRUNERS, Method, label, methods_for
from benchmarks.fullsize.models import PUBLISHED, model_config, random_inputs
from benchmarks.fullsize.report import Results, Row, combination, spread
from benchmarks.fullsize.syncs import synchronisations
from ivcp import pruned
from ivcp.core.errors import UserError
from ivcp.core.pruner import Pruner
from ivcp.measure.flops import DecoderSizes, prefill_flops
from ivcp.measure.timing import Phases, timed_phases
from ivcp.models import find_family
from ivcp.pruners.none import NoPruning
from ivcp.results.provenance import git_state, versions
from ivcp.testing import random_model

HERE = Path(__file__).parent
T = TypeVar("T")
DEFAULTS: dict[str, dict[str, Any]] = {
    "full": {"tokens": [400, 1600, 4096], "batch": [1, 8], "repeats": 20, "warmups": 2,
             "decode_tokens": 32, "dtype": "bfloat16"},
    "reduced": {"tokens": [400, 1024], "batch": [1, 2], "repeats": 5, "warmups": 1,
                "decode_tokens": 8, "dtype": "float32"},
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """Times and memory of one call of `generate`.

    Attributes:
        phases: Seconds of each part.
        overhead: Seconds that pruning took, part of `phases.decoder`.
        peak_bytes: Most memory allocated on the GPU, weights included; None on a CPU.
        cache_bytes: KV cache of the batch right after prefill; 0 without a session.
        layer_tokens: [layer][sample] tokens processed; empty without a session.
    """

    phases: Phases
    overhead: float
    peak_bytes: int | None
    cache_bytes: int
    layer_tokens: list[list[int]]


def attempt(call: Callable[[], T]) -> T | None:
    """The result, or None if the GPU's memory does not suffice."""
    try:
        return call()
    except torch.OutOfMemoryError:
        pass  # the traceback holds tensors, which are freed when this block ends
    gc.collect()
    torch.cuda.empty_cache()
    return None


def run_once(model: Any, inputs: dict[str, Tensor], pruner: Pruner | None, new_tokens: int) -> Run:
    """One prefill and `new_tokens` decoding steps."""
    family, cuda = find_family(model), model.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(model.device)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        session = None if pruner is None else stack.enter_context(pruned(model, pruner))
        parts = family.vision(model), family.decoder(model)
        phases = stack.enter_context(timed_phases(model, *parts))
        model.generate(**inputs, max_new_tokens=new_tokens + 1, do_sample=False, eos_token_id=None)
    return Run(
        phases,
        0.0 if session is None else session.overhead_seconds,
        torch.cuda.max_memory_allocated(model.device) if cuda else None,
        0 if session is None else session.cache_bytes,
        [] if session is None else session.layer_tokens,
    )


def unpruned_by_formula(model: Any, inputs: dict[str, Tensor], sizes: DecoderSizes) -> Run:
    """Cache and tokens of the unpruned model where the memory does not suffice to run it."""
    batch, length = inputs["input_ids"].shape
    stored = sizes.cache_bytes(batch * length, model.dtype.itemsize)
    return Run(Phases(), 0.0, None, stored, [[length] * batch] * sizes.layers)


def kept_fraction(layer_tokens: list[list[int]], pruner: Pruner) -> float:
    """Fraction of the prompt's tokens that the caches should hold, all layers together.

    Args:
        layer_tokens: [layer][sample] tokens processed.
        pruner: The method; its stages may prune the caches of earlier layers too.
    """
    if all(stage.prune_earlier_kv for stage in pruner.stages()):
        return sum(layer_tokens[-1]) / sum(layer_tokens[0])
    return sum(map(sum, layer_tokens)) / (len(layer_tokens) * sum(layer_tokens[0]))


def numbers(
    runs: list[Run], base: list[Run], unpruned: Run, method: Method, sizes: DecoderSizes, steps: int
) -> Row:
    """The measured part of a row.

    Args:
        runs: Repeats of the method.
        base: Repeats of the plain model, paired with them; empty if it ran out of memory.
        unpruned: Cache and tokens of the unpruned model, from a session of `NoPruning`.
        method: The method.
        sizes: Sizes of the decoder.
        steps: Decoding steps of each run.
    """

    def flops(run: Run) -> int:
        return sum(prefill_flops(sample, sizes) for sample in zip(*run.layer_tokens, strict=True))

    kept = unpruned if method.pruner is None else runs[0]
    row: Row = {
        **spread("first_token_ms", [1e3 * run.phases.first_token for run in runs]),
        **spread("vision_tower_ms", [1e3 * run.phases.vision for run in runs]),
        **spread("prefill_ms", [1e3 * run.phases.decoder for run in runs]),
        **spread("pruning_overhead_ms", [1e3 * run.overhead for run in runs]),
        **spread("decode_ms_per_token", [1e3 * run.phases.decoding / steps for run in runs]),
        "kv_cache_bytes": kept.cache_bytes,
        "peak_memory_bytes": max((run.peak_bytes or 0 for run in runs), default=0) or "",
        "prefill_flops": flops(kept),
        "prefill_flops_ratio": flops(kept) / flops(unpruned),
        "kv_cache_ratio": kept.cache_bytes / unpruned.cache_bytes,
        "kept_tokens_fraction": kept_fraction(kept.layer_tokens, method.pruner or NoPruning()),
    }
    row["kv_cache_ratio_over_kept_fraction"] = row["kv_cache_ratio"] / row["kept_tokens_fraction"]
    if base:
        pairs = [(run.phases, plain.phases) for run, plain in zip(runs, base, strict=True)]
        row |= spread("first_token_time_ratio", [a.first_token / b.first_token for a, b in pairs])
        row |= spread("prefill_time_ratio", [a.decoder / b.decoder for a, b in pairs])
        row |= spread("decode_time_ratio", [a.decoding / b.decoding for a, b in pairs])
        shares = [run.overhead / b.decoder for run, (_, b) in zip(runs, pairs, strict=True)]
        row |= spread("overhead_share_of_unpruned_prefill", shares)
        row["prefill_time_ratio_over_flops_ratio"] = (
            row["prefill_time_ratio"] / row["prefill_flops_ratio"]
        )
    return row


def measure(
    model: Any, name: str, tokens: int, batch: int, methods: list[Method], args: Any
) -> list[Row]:
    """Rows of one group; a method that runs out of memory leaves the rotation."""
    prepared = attempt(lambda: random_inputs(name, model, tokens, batch))
    if prepared is None:
        return [{"status": "out of memory"} for _ in methods]
    inputs, visual = prepared
    runs: list[list[Run]] = [[] for _ in methods]
    left = set(range(len(methods)))
    sizes = DecoderSizes.of(find_family(model).decoder(model))
    unpruned = attempt(lambda: run_once(model, inputs, NoPruning(), 1))
    unpruned = unpruned or unpruned_by_formula(model, inputs, sizes)
    for repeat in range(-args.warmups, args.repeats):
        for turn in range(len(methods)):
            number = (turn + repeat) % len(methods)
            if number not in left:
                continue
            pruner = methods[number].pruner
            run = attempt(lambda p=pruner: run_once(model, inputs, p, args.decode_tokens))  # type: ignore[misc]
            if run is None:
                left.remove(number)
            elif repeat >= 0:
                runs[number].append(run)
    rows: list[Row] = []
    for number, method in enumerate(methods):
        row: Row = {"visual_tokens": visual, "prompt_tokens": inputs["input_ids"].shape[1]}
        if number in left:
            base = runs[0] if 0 in left else []
            row |= numbers(runs[number], base, unpruned, method, sizes, args.decode_tokens)
            if args.syncs:
                count = attempt(lambda p=method.pruner: synchronisations(model, inputs, p))  # type: ignore[misc]
                row["synchronisations_in_layers"] = "" if count is None else count
        rows.append({"status": "ok" if "prefill_ms" in row else "out of memory", **row})
    return rows


def about(args: argparse.Namespace) -> dict[str, Any]:
    """Machine, versions, state of the code and command."""
    machine: dict[str, Any] = {"cpu": platform.machine(), "threads": torch.get_num_threads()}
    if args.device.startswith("cuda"):
        machine["gpu"] = torch.cuda.get_device_name(args.device)
        machine["gpu_gib"] = round(
            torch.cuda.get_device_properties(args.device).total_memory / 2**30, 1
        )
        machine["cuda"] = torch.version.cuda
    chosen = {name: value for name, value in vars(args).items() if name != "argv"}
    state = git_state()
    return {
        "machine": machine,
        "versions": versions(),
        "git": state and state.model_dump(),
        "command": shlex.join(["python", "-m", "benchmarks.fullsize.bench", *args.argv]),
        "arguments": {**chosen, "out": args.out.name},
    }


def check(args: argparse.Namespace) -> None:
    """Find mistakes before any weights are made.

    Raises:
        UserError: A name is unknown, or an argument needs a GPU.
    """
    for names, available in ((args.models, PUBLISHED), (args.pruners, PRUNERS)):
        if wrong := [name for name in names if name not in available]:
            raise UserError(f"Expected some of {', '.join(available)}; got {', '.join(wrong)}.")
    if args.syncs and not args.device.startswith("cuda"):
        raise UserError("--syncs counts how often the CPU waits for a GPU; leave it out on a CPU.")
    for name in args.models:
        find_family(SimpleNamespace(config=model_config(name, args.size)))  # type: ignore[arg-type]


def bench(args: argparse.Namespace) -> Results:
    """Run every combination that the folder does not have yet."""
    check(args)
    cuda = args.device.startswith("cuda")
    results = Results(args.out, about(args))
    fixed = {
        "size": args.size, "attention": args.attention, "dtype": args.dtype,
        "device": torch.cuda.get_device_name(args.device) if cuda else "CPU",
        "repeats": args.repeats, "decode_tokens": args.decode_tokens,
    }  # fmt: skip
    for name in args.models:
        config, model = model_config(name, args.size, args.attention), None
        fraction = LAYER_FRACTION[name] if args.layer_fraction is None else args.layer_fraction
        layers = config.text_config.num_hidden_layers
        compared = methods_for(args.pruners, args.ratios, layers, fraction)
        for tokens, batch in itertools.product(args.tokens, args.batch):
            rows: list[Row] = [
                {**fixed, "model": name, "visual_tokens_wanted": tokens, "batch": batch, **label(m)}
                for m in compared
            ]
            new = [n for n, row in enumerate(rows) if combination(row) not in results.done]
            if not new:
                continue
            if model is None:
                try:
                    model = random_model(config, getattr(torch, args.dtype), args.device)
                except ImportError as error:
                    reason = str(error).split(".")[0]
                    raise UserError(
                        f"--attention {args.attention} cannot be used here ({reason}); "
                        "install it or use sdpa."
                    ) from error
                model.generation_config.eos_token_id = None  # all answers have the same length
            wanted = sorted({0, *new})  # ratios need the unpruned model in the same repeats
            methods = [compared[n] for n in wanted]
            measured = measure(model, name, tokens, batch, methods, args)
            results.add([rows[n] | row for n, row in zip(wanted, measured, strict=True)])
            print(f"{name}, {tokens} visual tokens, batch {batch}: {len(new)} rows", flush=True)
        del model
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
    results.write()
    return results


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; defaults depend on the size."""

    def several(kind: type) -> Callable[[str], list[Any]]:
        return lambda text: [kind(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=DEFAULTS, default="full")
    parser.add_argument("--models", type=several(str), default=list(PUBLISHED))
    parser.add_argument("--pruners", type=several(str), default=list(PRUNERS))
    parser.add_argument("--ratios", type=several(float), default=[0.5, 0.3])
    parser.add_argument("--tokens", type=several(int), help="visual tokens a sample")
    parser.add_argument("--batch", type=several(int))
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--warmups", type=int)
    parser.add_argument("--decode-tokens", type=int)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"])
    parser.add_argument(
        "--attention", choices=["sdpa", "eager", "flash_attention_2"], default="sdpa"
    )
    parser.add_argument(
        "--layer-fraction", type=float, help="where single-stage methods act, of the depth"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--syncs", action="store_true", help="count synchronisations (CUDA)")
    parser.add_argument("--out", type=Path, help="folder of the results; default: by size")
    args = parser.parse_args(argv)
    for name, value in DEFAULTS[args.size].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.out, args.argv = args.out or HERE / args.size, argv
    return args


def main() -> int:
    """Run and report."""
    try:
        results = bench(arguments(sys.argv[1:]))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print((results.folder / "results.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
