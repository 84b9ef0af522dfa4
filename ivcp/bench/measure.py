"""Speed and memory of a model with and without a pruner: `bench` is what `ivcp bench` calls."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from ivcp.bench.image import ImageSource, bench_image
from ivcp.bench.pairs import PairedRuns
from ivcp.bench.report import show_bench, write_bench
from ivcp.bench.result import BenchInfo, BenchResult
from ivcp.core.budget import in_words
from ivcp.core.budgeted import Budgeted, budgeted
from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.pairing import fit_pair
from ivcp.core.pruner import Pruner
from ivcp.core.resizing import encode_for
from ivcp.core.types import Sample
from ivcp.measure.devices import device_name, machine_name
from ivcp.results.provenance import git_state, versions

FINAL: Mapping[str, Any] = {"count": "final", "solved": True}
LEAST = {"repeats": 1, "warmup": 0, "new_tokens": 1, "batch_size": 1}


def bench(
    *,
    model: ModelFamily,
    pruner: Pruner,
    names: Mapping[str, str],
    image: ImageSource,
    folder: Path,
    question: str = "Describe the image.",
    repeats: int = 10,
    warmup: int = 2,
    new_tokens: int = 32,
    batch_size: int = 1,
    device: str = "auto",
    tokens: int | None = None,
    budget: Mapping[str, Any] = FINAL,
) -> BenchResult:
    """Measure a model with and without pruning, write `bench.json` and print a table.

    Args:
        model: The family that loads the weights.
        pruner: The method.
        names: Names of "model" and "pruner" for the record, and perhaps a "variant".
        image: The prompt's image, its file, or width and height of a rendered scene in pixels.
        folder: Where `bench.json` goes; made if it does not exist.
        question: The text of the prompt.
        repeats: Pairs of runs to measure.
        warmup: Pairs of runs before them.
        new_tokens: Tokens that every answer has.
        batch_size: Copies of the prompt in a call.
        device: "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N". A family with a
            `device_map` places its model itself.
        tokens: Visual tokens of an image to keep, instead of the pruner's `keep_ratio`.
        budget: What a budget counts (`ivcp.core.budgeted.budgeted`).

    Raises:
        UserError: An argument cannot be used, the model cannot serve the pruner, or the memory of
            the device does not suffice.
    """
    _check_numbers(
        {"repeats": repeats, "warmup": warmup, "new_tokens": new_tokens, "batch_size": batch_size}
    )
    target, picture = _device(device), bench_image(image)
    pruner = fit_pair(pruner, model, names["model"])
    pruner = budgeted(pruner, model.depth(), tokens=tokens, **budget)
    folder.mkdir(parents=True, exist_ok=True)
    loaded, processor = model.load()
    sample = Sample(
        id="bench", task="open_ended", images=(picture,), question=question, answer="",
        verbatim=True,
    )  # fmt: skip
    encoded = model.encode(processor, [sample] * batch_size)
    resized = encode_for(pruner, model, processor, [sample] * batch_size)
    try:
        if getattr(model, "device_map", None) is None:
            loaded.to(target)
        first = next(loaded.parameters()).device
        inputs, pruned_inputs = (
            {name: value.to(first) for name, value in each.inputs.items()}
            for each in (encoded, resized)
        )
        runs = PairedRuns(
            loaded, model, pruner, inputs,
            pruned_inputs=pruned_inputs, new_tokens=new_tokens, question=question,
        )  # fmt: skip
        counts = runs.counts
        console = Console(stderr=True)
        bar = Progress(
            console=console, disable=not console.is_terminal, transient=True, auto_refresh=False
        )  # a refreshing thread would run beside what is timed
        with bar:
            pairs = list(bar.track(runs.pairs(repeats, warmup), repeats, description="pairs"))
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"batch_size={batch_size} with an image of {picture.width} x {picture.height} pixels "
            "does not fit into the device's memory; use a smaller image, batch or dtype "
            "(model.dtype=bfloat16), or model.device_map=auto."
        ) from error
    tells_ratio = pruner.fills_ratio() or not pruner.prunes()
    variant = names.get("variant", "")
    if isinstance(pruner, Budgeted):
        words = in_words(pruner.keep_ratio, pruner.tokens, pruner.count)
        variant = f"{variant} ({words})".strip()
    about = {
        **_about(loaded, first),
        "notes": tuple(_notes(loaded, new_tokens, on_gpu=runs.on_gpu)),
        "weights": model.identity(),
    }
    result = BenchResult.of(
        pairs,
        counts,
        BenchInfo(
            model=names["model"],
            pruner=names["pruner"],
            variant=variant,
            method=repr(pruner),
            ratio=pruner.keep_ratio if tells_ratio else counts.visual_tokens.ratio,
            layers=tuple(stage.layer for stage in pruner.stages()),
            image=picture.size,
            question=question,
            batch_size=batch_size,
            new_tokens=new_tokens,
            repeats=repeats,
            warmup=warmup,
            **about,
        ),
    )
    show_bench(result, write_bench(result, folder))
    return result


def _check_numbers(numbers: Mapping[str, Any]) -> None:
    """Refuse numbers with which nothing can be measured."""
    for name, value in numbers.items():
        if type(value) is not int or value < LEAST[name]:
            raise UserError(
                f"{name} must be a whole number of at least {LEAST[name]}; got {value!r}."
            )


def _device(name: str) -> torch.device:
    """The device of a name, which is there."""
    gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    known = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{number}" for number in range(gpus))]
    if name not in known:
        raise UserError(f"device must be one of auto, {', '.join(known)}; got {name!r}.")
    return torch.device(name)


def _about(model: nn.Module, device: torch.device) -> dict[str, Any]:
    """Machine, model and versions."""
    loaded: Any = model
    return {
        "machine": machine_name(),
        "threads": torch.get_num_threads(),
        "device": device_name(device),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "attention": loaded.config._attn_implementation,
        "versions": versions(),
        "git": git_state(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _notes(model: nn.Module, new_tokens: int, *, on_gpu: bool) -> list[str]:
    """What was not measured, one sentence each."""
    loaded: Any = model
    notes = []
    if not on_gpu:
        notes.append("Peak memory is measured on CUDA only.")
    if new_tokens == 1:
        notes.append("Decoding was not measured: an answer has one token.")
    if "flash" in loaded.config._attn_implementation:
        notes.append("Counted FLOPs lack attention: PyTorch does not see FlashAttention's kernels.")
    return notes
