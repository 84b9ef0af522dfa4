"""Speed and memory of models with and without pruners: `bench` is what `ivcp bench` calls.

One group is one prompt of one model in one batch size. The unpruned model and all methods run in
it, in rotated order. Groups are saved one by one, so that an interrupted benchmark can go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ivcp.bench.image import ImageSource, bench_image
from ivcp.bench.loaded_model import LoadedModel
from ivcp.bench.report import FILE, read_bench, show_bench, write_bench
from ivcp.bench.result import BenchInfo, BenchResult, Group
from ivcp.bench.subject import Method, Subject
from ivcp.bench.verdict import verdicts
from ivcp.core.errors import UserError
from ivcp.measure.devices import device_name, machine_name
from ivcp.results.provenance import git_state, versions

LEAST = {"repeats": 1, "warmup": 0, "new_tokens": 1, "batch_size": 1, "tokens": 1}
SAME = ("question", "new_tokens", "repeats", "warmup", "machine", "threads", "device")
"""What must not have changed where a benchmark goes on."""


def bench(
    subjects: Sequence[Subject],
    *,
    folder: Path,
    image: ImageSource = (1024, 1024),
    tokens: int | Sequence[int] | None = None,
    batch_size: int | Sequence[int] = 1,
    question: str = "Describe the image.",
    repeats: int = 10,
    warmup: int = 2,
    new_tokens: int = 32,
    device: str = "auto",
    syncs: bool = False,
    resume: bool = False,
    command: str = "",
) -> BenchResult:
    """Measure models with and without pruning, write the files and print a table.

    Args:
        subjects: Models with their methods.
        folder: Where the files go; made if it does not exist.
        image: The prompt's image, its file, or width and height of a rendered scene in pixels.
        tokens: Visual tokens of a prompt, instead of an image: a scene is rendered in a size that
            gives as nearly as possible so many. Several numbers are several groups.
        batch_size: Copies of the prompt in a call; several numbers are several groups.
        question: The text of the prompt.
        repeats: Repeats to measure.
        warmup: Repeats before them.
        new_tokens: Tokens that every answer has.
        device: "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N". A family with a
            `device_map` places its model itself.
        syncs: Whether to count host-device synchronisations, on CUDA.
        resume: Whether to go on with what `folder` holds.
        command: What was typed, for the record.

    Raises:
        UserError: An argument cannot be used, a model cannot serve a method, a model does not fit
            into memory, or `folder` holds another benchmark.
    """
    prompts: list[int | None] = [None] if tokens is None else list(_numbers("tokens", tokens))
    batches = _numbers("batch_size", batch_size)
    for name, value in (("repeats", repeats), ("warmup", warmup), ("new_tokens", new_tokens)):
        _check_number(name, value)
    target = find_device(device)
    if syncs and target.type != "cuda":
        raise UserError("syncs=true counts how often the host waits for a GPU: leave it out here.")
    picture = bench_image(image)
    subjects = [subject.fitted() for subject in subjects]
    about = BenchInfo(
        command=command, question=question, new_tokens=new_tokens, repeats=repeats, warmup=warmup,
        machine=machine_name(), threads=torch.get_num_threads(), device=device_name(target),
        versions=versions(), git=git_state(), notes=tuple(_notes(new_tokens, target)),
    )  # fmt: skip
    result = _earlier(folder, about) if resume else BenchResult(run=about)
    if not resume and (folder / FILE).exists():
        raise UserError(
            f"{folder} holds a benchmark already: resume=true goes on with it, or choose another "
            "folder with hydra.run.dir=."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        loaded: LoadedModel | None = None
        for wanted in prompts:
            for batch in batches:
                methods = _missing(result, subject, wanted, picture, batch)
                if not methods:
                    continue
                loaded = loaded or LoadedModel(subject, target)
                shown = picture if wanted is None else loaded.image(wanted)
                if twin := _twin(result, subject, shown, batch, methods, wanted):
                    groups = [twin if g.methods == twin.methods else g for g in result.groups]
                else:
                    group = loaded.measure(about, methods, shown, wanted, batch, syncs=syncs)
                    groups = [*result.groups, group]
                result = result.model_copy(
                    update={"groups": tuple(groups), "verdicts": tuple(verdicts(groups))}
                )
                write_bench(result, folder)
        if loaded is not None:
            loaded.release()
    show_bench(result, write_bench(result, folder))
    return result


def _alike(result: BenchResult, subject: Subject, batch: int) -> list[Group]:
    """The groups of a model as it is now, with this batch size."""
    family: Any = subject.family
    return [
        group
        for group in result.groups
        if (group.model, group.batch_size) == (subject.name, batch)
        and getattr(family, "attention", group.attention) == group.attention
        and getattr(family, "dtype", "auto") in ("auto", group.dtype)
    ]


def _missing(
    result: BenchResult, subject: Subject, wanted: int | None, picture: Image.Image, batch: int
) -> list[Method]:
    """Methods that no group has measured with this prompt and batch size."""
    done = set()
    for group in _alike(result, subject, batch):
        if wanted in group.wanted_tokens if wanted else group.image == picture.size:
            done |= {(row.info.pruner, row.info.method) for row in group.methods}
    return [m for m in subject.methods if (m.name, repr(m.pruner)) not in done]


def _twin(
    result: BenchResult,
    subject: Subject,
    image: Image.Image,
    batch: int,
    methods: Sequence[Method],
    wanted: int | None,
) -> Group | None:
    """A group that has measured the same, for another wanted number of tokens."""
    names = {(method.name, repr(method.pruner)) for method in methods}
    for group in _alike(result, subject, batch):
        measured = {(row.info.pruner, row.info.method) for row in group.methods}
        if wanted and group.wanted_tokens and group.image == image.size and names <= measured:
            return group.model_copy(update={"wanted_tokens": (*group.wanted_tokens, wanted)})
    return None


def _earlier(folder: Path, about: BenchInfo) -> BenchResult:
    """What a folder holds of the same benchmark.

    Raises:
        UserError: It was measured otherwise.
    """
    if not (folder / FILE).exists():
        return BenchResult(run=about)
    result = read_bench(folder / FILE)
    changed = [n for n in SAME if getattr(result.run, n) != getattr(about, n)]
    for name in changed:
        raise UserError(
            f"resume=true goes on with the same benchmark only; in {folder}, {name} was "
            f"{getattr(result.run, name)!r}, now it is {getattr(about, name)!r}: choose another "
            "folder with hydra.run.dir=."
        )
    return result


def _numbers(name: str, values: int | Sequence[int]) -> list[int]:
    """One number or several as a list without doubles.

    Raises:
        UserError: One of them cannot be used.
    """
    numbers = list(values) if isinstance(values, list | tuple) else [values]
    if not numbers:
        raise UserError(f"{name} must be one or more whole numbers; got none.")
    for value in numbers:
        _check_number(name, value)
    return list(dict.fromkeys(numbers))  # type: ignore[arg-type]


def _check_number(name: str, value: Any) -> None:
    if type(value) is not int or value < LEAST[name]:
        raise UserError(f"{name} must be a whole number of at least {LEAST[name]}; got {value!r}.")


def find_device(name: str) -> torch.device:
    """The device of a name, which is there.

    Raises:
        UserError: It is not.
    """
    gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    known = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{number}" for number in range(gpus))]
    if name not in known:
        raise UserError(f"device must be one of auto, {', '.join(known)}; got {name!r}.")
    return torch.device(name)


def _notes(new_tokens: int, device: torch.device) -> list[str]:
    """What was not measured, one sentence each."""
    notes = []
    if device.type != "cuda":
        notes.append("Peak memory is measured on CUDA only.")
    if new_tokens == 1:
        notes.append("Decoding was not measured: an answer has one token.")
    return notes
