"""Several processes give what one gives; a batch that is too large is halved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ivcp.core.errors import UserError
from ivcp.datasets.shapes import Shapes
from ivcp.evaluation.evaluate import evaluate
from ivcp.models.qwen25vl import Qwen25VL

ROOT = Path(__file__).parents[2]
TIMES = ("_ms", "_ms_per_token")


def outcome(parts: dict[str, Any], name: str, **changed: Any) -> tuple[list[Any], dict[str, Any]]:
    """Lines and report of a run, without times and what the machine was."""
    folder = Path(parts["folder"]).with_name(name)
    folder.mkdir()
    evaluate(**parts | {"folder": str(folder)} | changed)
    lines = []
    for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        lines.append({key: value for key, value in told.items() if not key.endswith(TIMES)})
    report = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    efficiency = report["efficiency"]
    for key in list(efficiency):
        if key.endswith(TIMES) or "second" in key or key == "peak_memory_bytes":
            del efficiency[key]
    return lines, {name: report[name] for name in ("metrics", "tokens", "efficiency")}


def spawned(parts: dict[str, Any], processes: int) -> dict[str, Any]:
    return {"trainer": partial(parts["trainer"], devices=processes, strategy="ddp_spawn")}


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_change_nothing_but_times(parts, processes) -> None:
    parts["dataset"] = Shapes(task="grounding", size=7)
    assert outcome(parts, "one") == outcome(parts, "many", **spawned(parts, processes))


def test_fewer_samples_than_processes(parts) -> None:
    parts["config"]["batch_size"] = 1
    for size in (1, 3):
        parts["dataset"] = Shapes(task="grounding", size=size)
        one = outcome(parts, f"one-{size}")
        assert one == outcome(parts, f"four-{size}", **spawned(parts, 4))


class Fails(Qwen25VL):
    """Stops at the last sample, which the second process has."""

    def encode(self, processor, samples):
        if any(sample.id == "test-0-4" for sample in samples):
            raise ZeroDivisionError("the second process stops here")
        return super().encode(processor, samples)


def test_a_process_that_fails_ends_the_run_with_its_own_error(parts, model_folder) -> None:
    parts["dataset"] = Shapes(task="grounding", size=5)
    parts["model"] = Fails(path=str(model_folder), dtype="float32")
    parts["config"]["batch_size"] = 1
    started = time.monotonic()
    with pytest.raises(Exception, match="the second process stops here"):
        evaluate(**parts | spawned(parts, 2))
    assert time.monotonic() - started < 60


def test_subprocesses_and_torchrun(model_folder, tmp_path) -> None:
    """run.py starts a second process of itself, and is started by another program."""
    words = [
        f"model.path={model_folder}", "pruner=random", "pruner.layer=2", "trainer=ddp_cpu",
        "trainer.strategy=ddp", "logger=none", "workers=0", "limit=5", "batch_size=1", "pictures=0",
        "generation.max_new_tokens=2",
    ]  # fmt: skip
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
    ]  # fmt: skip
    indices = []
    for name, launch in (("subprocesses", [sys.executable]), ("torchrun", torchrun)):
        folder = tmp_path / name
        done = subprocess.run(
            [*launch, ROOT / "run.py", *words, f"hydra.run.dir={folder}"],
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        report = json.loads((folder / "metrics.json").read_text())
        assert report["run"]["processes"] == 2
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        indices.append([json.loads(line)["index"] for line in lines])
    assert indices == [[0, 1, 2, 3, 4]] * 2


@pytest.fixture
def small_memory(parts, monkeypatch):
    """Makes `generate` run out of memory with more than two samples."""
    from transformers import Qwen2_5_VLForConditionalGeneration as Model

    generate = Model.generate

    def limited(self, **inputs):
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(self, **inputs)

    monkeypatch.setattr(Model, "generate", limited)
    parts["dataset"] = Shapes(task="grounding", size=9)
    return parts


def test_a_batch_that_does_not_fit_is_halved_and_answers_stay(small_memory) -> None:
    parts = small_memory
    lines, report = outcome(parts, "small")
    parts["config"]["batch_size"] = "auto"  # eight on a CPU
    halved, report_of_halved = outcome(parts, "auto")
    answers = ("index", "prediction", "kept", "score")
    assert [[one[key] for key in answers] for one in halved] == [
        [one[key] for key in answers] for one in lines
    ]
    assert report_of_halved["metrics"] == report["metrics"]
    counts = [one["efficiency"]["halved_batches"] for one in (report, report_of_halved)]
    assert counts == [0, 2]


def test_without_auto_a_batch_that_does_not_fit_is_one_sentence(small_memory) -> None:
    small_memory["config"]["batch_size"] = 4
    with pytest.raises(UserError, match="A batch of 4 samples does not fit"):
        evaluate(**small_memory)
