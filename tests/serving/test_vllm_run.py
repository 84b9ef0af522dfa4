"""`ivcp run backend=vllm` gives the records and scores of `backend=transformers`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm")

import serving.served  # noqa: F401  (sets the environment that runs inherit)

ROOT = Path(__file__).parents[2]
SMALL = (
    "backend=vllm", "backend.enforce_eager=true", "backend.max_model_len=512",
    "+backend.engine.max_num_seqs=8", "+backend.engine.skip_mm_profiling=true",
    "+backend.engine.limit_mm_per_prompt={image:2,video:0}",
)  # fmt: skip
SAME = (
    "index", "id", "prompt", "prediction", "parsed", "score", "image_size", "prompt_tokens",
    "visual_tokens", "kept_tokens", "generated_tokens", "images", "layer_tokens",
    "prefill_flops", "prefill_flops_unpruned",
)  # fmt: skip


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", *words, "model.dtype=float32", "logger=none", "workers=0"]
    return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)


def records(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [{name: json.loads(line)[name] for name in SAME} for line in lines]


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three methods by either backend, with images that have to be resized."""
    folder = tmp_path_factory.mktemp("runs")
    words = (
        "-m", "pruner=divprune,ivc,random", "pruner.layer=0", "ratio=0.5", "limit=24",
        "batch_size=24", "model.max_pixels=20000", "generation.max_new_tokens=24",
    )  # fmt: skip
    for name, backend in {"transformers": (), "vllm": SMALL}.items():
        done = run(
            *words,
            *backend,
            f"hydra.sweep.dir={folder / name}",
            "hydra.sweep.subdir=${hydra.job.num}",
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return {name: folder / name for name in ("transformers", "vllm")}


@pytest.mark.parametrize("number", range(3))
def test_records_and_scores(sweeps: dict[str, Path], number: int) -> None:
    plain, served = (sweeps[name] / str(number) for name in ("transformers", "vllm"))
    assert records(served) == records(plain)
    plain_results, results = (
        json.loads((folder / "metrics.json").read_text()) for folder in (plain, served)
    )
    assert results["metrics"] == plain_results["metrics"]
    assert results["tokens"] == plain_results["tokens"]
    assert results["run"]["attention"] == "vllm"
    assert results["efficiency"]["samples_per_second"] > 0
    assert results["efficiency"]["time_to_first_token_ms"]["median"] is None


def test_a_run_goes_on(sweeps: dict[str, Path]) -> None:
    folder = sweeps["vllm"] / "mine"
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
        (["pruner=divprune", "generation.num_beams=2"], "got num_beams: leave them out"),
        (["pruner=divprune", "trainer=ddp_cpu"], "A server spreads over GPUs by itself"),
        (["pruner=divprune", "model=llava15", "model.random=true"], "backend=vllm answers with"),
    ],
)
def test_refusals_come_before_the_engine(words: list[str], sentence: str, tmp_path: Path) -> None:
    done = run(*words, *SMALL, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
