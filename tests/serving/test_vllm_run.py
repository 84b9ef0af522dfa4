"""`ivcp run backend=vllm` gives the records and scores of `backend=transformers`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

import ivcp
import serving.served  # noqa: F401  (sets the environment that runs inherit)
from ivcp.core.types import Sample
from ivcp.datasets.shapes import Shapes
from ivcp.integrations.vllm.backend import VLLMBackend
from ivcp.metrics.grounding import GroundingMetrics
from ivcp.pruners.ivc import IVCOnly

ROOT = Path(__file__).parents[2]
SMALL = (
    "backend=vllm", "backend.enforce_eager=true", "backend.max_model_len=512",
    "+backend.engine.max_num_seqs=8", "+backend.engine.skip_mm_profiling=true",
    "+backend.engine.limit_mm_per_prompt={image:2,video:0}",
)  # fmt: skip
SAME = (
    "index", "id", "prompt", "prediction", "parsed", "score", "image_size", "prompt_tokens",
    "visual_tokens", "kept_tokens", "generated_tokens", "images", "kept", "reasons",
    "layer_tokens", "prefill_flops", "prefill_flops_unpruned", "failed",
)  # fmt: skip


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", *words, "model.dtype=float32", "logger=none", "workers=0"]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)


def records(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [{name: json.loads(line)[name] for name in SAME} for line in lines]


WORDS = (
    "ratio=0.5", "limit=24", "batch_size=24", "model.max_pixels=20000",
    "generation.max_new_tokens=24",
)  # fmt: skip
METHODS = ("none", "divprune", "ivc", "random", "ivcp_two_pass")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """A run of each method by either backend, with images that have to be resized."""
    folder = tmp_path_factory.mktemp("runs")
    sweeps = {
        "none": ("pruner=none",),
        "plain": ("pruner=divprune,ivc,random", "pruner.layer=0"),
        "passes": ("pruner=ivcp_two_pass",),
        "vllm": (f"pruner={','.join(METHODS)}", *SMALL),  # in which "auto" is layer 0
    }
    for name, more in sweeps.items():
        path = f"hydra.sweep.dir={folder / name}"
        done = run("-m", *WORDS, *more, path, "hydra.sweep.subdir=${hydra.job.num}")
        assert done.returncode == 0, done.stderr[-3000:]
    plain = [folder / "plain" / str(number) for number in range(3)]
    plain = [folder / "none" / "0", *plain, folder / "passes" / "0"]
    return {"plain": plain, "vllm": [folder / "vllm" / str(number) for number in range(5)]}


@pytest.mark.parametrize("number", range(5), ids=METHODS)
def test_records_and_scores(runs: dict[str, list[Path]], number: int) -> None:
    plain, served = runs["plain"][number], runs["vllm"][number]
    assert records(served) == records(plain)
    plain_results, results = (
        json.loads((folder / "metrics.json").read_text()) for folder in (plain, served)
    )
    for part in ("metrics", "tokens"):
        assert results[part] == plain_results[part]
    for name in ("layers", "ratio", "budget", "rotary", "dtype", "unpruned"):
        assert results["run"][name] == plain_results["run"][name]
    assert results["run"]["layers"] == ([0] if number else [])
    assert results["run"]["attention"] == "vllm"
    assert results["efficiency"]["samples_per_second"] > 0
    times = ("time_to_first_token_ms", "decode_ms_per_token")
    assert all(results["efficiency"][name]["median"] > 0 for name in times)
    pictures = [sorted((folder / "pictures").glob("*.png")) for folder in (plain, served)]
    assert len(pictures[0]) == 4
    for theirs, ours in zip(*pictures, strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_two_engines_share_the_samples(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    words = (*WORDS, "batch_size=6", "pruner=divprune", *SMALL, "backend.data_parallel_size=2")
    done = run(*words, f"hydra.run.dir={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert records(tmp_path / "two") == records(runs["vllm"][1])
    results = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert results["run"]["processes"] == 2


class Odd(Shapes):
    """Scenes of odd sizes; of some of them something is wrong."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        image = sample.images[0].resize(((300, 217), (97, 411), (192, 192))[index % 3])
        sample = replace(sample, images=(image,))
        if index == 1:
            raise OSError("image file is truncated")
        if index == 2:
            return replace(sample, question="a circle " * 600)
        if index == 3:  # vLLM encodes an image once that a prompt holds twice
            return replace(sample, images=(image, image))
        return replace(sample, images=(image.convert("L"),)) if index == 4 else sample


@pytest.mark.parametrize("method", ["divprune", "ivc"])
def test_what_fails_is_counted_and_the_rest_answered(method: str, tmp_path: Path) -> None:
    pruner = {"divprune": ivcp.DivPrune(keep_ratio=0.4), "ivc": IVCOnly(keep_ratio=0.4, layer=0)}
    engine = {"max_num_seqs": 4, "skip_mm_profiling": True, "limit_mm_per_prompt": {"image": 2}}
    backend = VLLMBackend(enforce_eager=True, max_model_len=900, engine=engine)
    common: dict[str, Any] = {
        "pruner": pruner[method], "dataset": Odd(task="grounding", size=12),
        "metric": GroundingMetrics(), "quiet": True, "logger": "none", "workers": 0,
        "batch_size": 12, "pictures": 0, "generation": {"max_new_tokens": 16},
    }  # fmt: skip
    plain = ivcp.evaluate("tiny", folder=tmp_path / "plain", **common)
    served = ivcp.evaluate("tiny", folder=tmp_path / "vllm", backend=backend, **common)
    ours, theirs = records(served.folder), records(plain.folder)
    assert "truncated" in str(ours[1]["failed"])
    assert "maximum context length" in str(ours[2].pop("failed"))
    assert ours[2].pop("score") == 0
    assert served.results.run.failed_samples == 2
    del ours[2], theirs[2]
    assert ours == theirs
    assert len(ours[2]["images"]) == 2  # type: ignore[arg-type]


def test_a_signal_keeps_finished_batches(runs: dict[str, list[Path]], tmp_path: Path) -> None:
    """As a terminal sends it: to the engine's process, too."""
    words = [
        "pruner=divprune", "ratio=0.5", "limit=24", "batch_size=4", "model.max_pixels=20000",
        "generation.max_new_tokens=24", "model.dtype=float32", "logger=none", "workers=2", *SMALL,
        f"hydra.run.dir={tmp_path}",
    ]  # fmt: skip
    command, environment = [sys.executable, "run.py", *words], dict(os.environ)
    del environment["VLLM_ENABLE_V1_MULTIPROCESSING"]
    errors = (tmp_path / "errors").open("w+")
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=errors, stderr=errors, start_new_session=True
    )
    lines = tmp_path / "predictions.jsonl"
    while process.poll() is None and not (lines.exists() and lines.read_bytes()):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) == 130, (tmp_path / "errors").read_text()[-3000:]
    assert "Traceback" not in (tmp_path / "errors").read_text()
    finished = records(tmp_path)
    assert 4 <= len(finished) < 24
    time.sleep(5)  # multiprocessing's own helper ends a moment later
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nothing is left behind
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    done = subprocess.run([*command, "resume=true"], cwd=ROOT, env=environment)
    assert done.returncode == 0
    assert records(tmp_path)[: len(finished)] == finished
    assert records(tmp_path) == records(runs["vllm"][1])


def test_a_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path
    words = ("pruner=divprune", "limit=16", "batch_size=8", *SMALL, f"hydra.run.dir={folder}")
    assert run(*words).returncode == 0
    whole = records(folder)
    file = folder / "predictions.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:8]))
    (folder / "metrics.json").unlink()
    done = run(*words, "resume=true")
    assert done.returncode == 0, done.stderr[-3000:]
    assert records(folder) == whole
    assert "8 of 16 answers were there already" in (folder / "metrics.json").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["pruner=fastv"], "vLLM can prune before the language model only"),
        (
            ["pruner=divprune", "+generation.num_beams=2"],
            "which has no counterpart",
        ),
        (
            ["pruner=divprune", "trainer=ddp_cpu"],
            "trainer.devices=2 is of no use",
        ),
    ],
)
def test_refusals_come_before_the_engine(words: list[str], sentence: str, tmp_path: Path) -> None:
    done = run(*words, *SMALL, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
