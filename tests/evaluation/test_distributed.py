"""Several processes give what one gives; a batch that is too large is halved."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from ivcp.core.errors import UserError
from ivcp.datasets.shapes import Shapes
from ivcp.evaluation.evaluate import evaluate
from ivcp.evaluation.trainer import make_trainer
from ivcp.results.prediction import Prediction

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


def test_processes_change_nothing_but_times(parts) -> None:
    parts["dataset"] = Shapes(task="grounding", size=7)
    assert outcome(parts, "one") == outcome(parts, "many", **spawned(parts, 3))


def test_what_is_sampled_does_not_depend_on_the_processes(parts) -> None:
    parts["dataset"] = Shapes(task="grounding", size=5)
    parts["config"]["batch_size"] = 1
    parts["config"]["generation"] = {"max_new_tokens": 4, "do_sample": True}
    one, _ = outcome(parts, "one")
    assert one == outcome(parts, "many", **spawned(parts, 2))[0]
    parts["config"]["seed"] = 1
    assert one != outcome(parts, "other")[0]


def test_fewer_samples_than_processes(parts) -> None:
    parts["config"]["batch_size"] = 1
    parts["dataset"] = Shapes(task="grounding", size=1)
    assert outcome(parts, "one") == outcome(parts, "three", **spawned(parts, 3))


LONG = ("limit=4000", "dataset.size=4000")
"""So many samples that no process is near the end of its share when another one fails."""

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def node(number: int, port: int) -> list[str]:
    """How torchrun is started on one of two nodes with a process each."""
    return [
        "-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={number}", "--nproc_per_node=1",
        "--master_addr=127.0.0.1", f"--master_port={port}",
    ]  # fmt: skip


def task(number: int, port: int) -> dict[str, str]:
    """What srun tells one of two tasks on a node."""
    return {
        "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1",
        "SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "4123", "SLURM_JOB_NAME": "run", "MASTER_PORT": str(port),
    }  # fmt: skip


def start(
    launch: list[str], folder: Path, model_folder: Path, *words: str, **environment: str
) -> subprocess.Popen[str]:
    """run.py with two processes: it starts the second one itself, or another program both."""
    return subprocess.Popen(
        [
            sys.executable, *launch, ROOT / "run.py", f"model.path={model_folder}", "pruner=random",
            "pruner.layer=2", "trainer=ddp_cpu", "logger=none", "workers=0", "batch_size=1",
            "pictures=0", "generation.max_new_tokens=2", f"hydra.run.dir={folder}",
            f"hydra.sweep.dir={folder}", *words,
        ],
        cwd=folder.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={
            **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests"), **environment
        },
    )  # fmt: skip


def launched(launch: list[str], folder: Path, model_folder: Path, *words: str) -> Any:
    """A run that has ended."""
    process = start(launch, folder, model_folder, *words)
    out, err = process.communicate(timeout=200)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.parametrize("how", ["subprocesses", "two nodes of torchrun", "two tasks of srun"])
def test_whoever_starts_the_processes(how, model_folder, tmp_path, unused_port) -> None:
    folder, words = tmp_path / "run", ["trainer.strategy=ddp", "limit=5"]
    starts: list[tuple[list[str], dict[str, str]]] = [([], {})]
    if how == "two nodes of torchrun":
        words += ["trainer.devices=1", "trainer.num_nodes=2"]
        starts = [(node(number, unused_port), {}) for number in range(2)]
    elif how == "two tasks of srun":  # which may go through a sweep together
        words += ["ratio=0.5,0.3", "hydra.sweep.subdir=${ratio}", "-m"]
        starts = [([], task(number, unused_port)) for number in range(2)]
    processes = [
        start(launch, folder, model_folder, *words, **environment) for launch, environment in starts
    ]
    for process in processes:
        _, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
    for place in (folder / "0.5", folder / "0.3") if "-m" in words else (folder,):
        report = json.loads((place / "metrics.json").read_text())
        assert report["run"]["processes"] == 2
        lines = (place / "predictions.jsonl").read_text().splitlines()
        assert [json.loads(line)["index"] for line in lines] == [0, 1, 2, 3, 4]


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_job_of_one_task_may_spawn_its_processes(monkeypatch) -> None:
    """As a sweep's job on a cluster does with trainer=ddp; each of several tasks must not."""
    trainer = partial(lightning.Trainer, accelerator="cpu", devices=2, strategy="ddp_spawn")
    for name, value in task(0, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="a cluster says that 2 were started"):
        make_trainer(trainer, [])
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert make_trainer(trainer, []).world_size == 2


@pytest.mark.parametrize(
    ("launch", "strategy", "killed", "told"),
    [
        ([], "ddp_spawn", False, "ZeroDivisionError: process 1 stops here"),
        ([], "ddp", False, "ZeroDivisionError: process 1 stops here"),
        (TORCHRUN, "ddp", False, "ZeroDivisionError: process 1 stops here"),
        ([], "ddp_spawn", True, "process 1 terminated with signal SIGKILL"),
        ([], "ddp", True, "process 1, with exit code -9"),
    ],
)
def test_a_process_that_fails_ends_the_run_with_its_own_error(
    launch, strategy, killed, told, model_folder, tmp_path
) -> None:
    """Within a minute, and what is finished stays."""
    done = launched(
        launch, tmp_path / "run", model_folder, f"trainer.strategy={strategy}",
        "model._target_=failing.Failing", f"+model.killed={killed}", *LONG,
    )  # fmt: skip
    own = tmp_path / "run" / "predictions.1.jsonl"
    assert time.time() - own.stat().st_mtime < 60
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert len(own.read_text().splitlines()) == 4
    other = (tmp_path / "run" / "predictions.0.jsonl").read_text().splitlines()
    assert len(other) < 2000  # not at the end of its share


def test_nobody_goes_on_when_the_first_process_is_killed(model_folder, tmp_path) -> None:
    """The second one would hold its GPU until its share is done."""
    done = launched(
        [], tmp_path / "run", model_folder, "trainer.strategy=ddp", *LONG,
        "model._target_=failing.Failing", "+model.killed=true", "+model.rank=0",
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL  # and its output is closed, so the other has ended
    assert "gone (the one that started this one)" in done.stderr
    answers = (tmp_path / "run" / "predictions.1.jsonl").read_text().splitlines()
    assert 0 < len(answers) < 2000


def test_no_spawned_process_goes_on_when_the_one_that_spawned_it_is_killed(
    model_folder, tmp_path
) -> None:
    """Not even where an interrupt, which the system would send them, is ignored."""
    ignore = "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    ignore += "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    process = start(["-c", ignore], tmp_path / "run", model_folder, *LONG)
    shards = [tmp_path / "run" / f"predictions.{rank}.jsonl" for rank in range(2)]
    while process.poll() is None and not all(s.exists() and s.stat().st_size for s in shards):
        time.sleep(0.1)
    process.kill()
    process.communicate(timeout=60)  # its output is closed when the others have ended
    assert all(len(shard.read_text().splitlines()) < 2000 for shard in shards)


def test_tasks_that_go_through_a_sweep_do_not_part_when_one_fails(
    model_folder, tmp_path, unused_port
) -> None:
    """The one that fails ends, and does not meet the other's run in its own next one."""
    folder = tmp_path / "run"
    words = [
        "trainer.strategy=ddp", "limit=5", "ratio=0.7,0.5", "hydra.sweep.subdir=${ratio}", "-m",
    ]  # fmt: skip
    (folder / "0.7").mkdir(parents=True)
    (folder / "0.7" / "run.json").write_text("{}")
    prediction = Prediction.of(0, Shapes(task="grounding", size=1)[0], score=0)
    (folder / "0.7" / "predictions.jsonl").write_text(prediction.line())
    first, second = (
        start([], folder, model_folder, *words, **task(number, unused_port)) for number in range(2)
    )
    _, err = first.communicate(timeout=200)
    second.kill()  # as srun --kill-on-bad-exit does
    second.communicate()
    assert first.returncode == 2
    assert "run.json is damaged, so nobody knows whose answers lie beside it" in err
    assert not (folder / "0.5").exists()


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
