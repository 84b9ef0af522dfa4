"""Sweeps on other launchers than Hydra's own: several runs at a time, and jobs of a cluster."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from command import run_py
from hydra import compose, initialize_config_dir
from untrained import save_untrained

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("launch") / "model", layers=4)


def test_a_sweep_as_jobs(model, tmp_path, monkeypatch, capsys) -> None:
    """With joblib, it is a command of the README, which are all run by a test."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = run_py(
        "-m", "hydra/launcher=submitit_local", f"model.path={model}", "pruner=random",
        "pruner.layer=1,2", "trainer=cpu", "logger=none", "workers=1", "limit=1", "pictures=0",
        "generation.max_new_tokens=1",
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    reports = [
        json.loads(path.read_text()) for path in tmp_path.glob("multirun/*/*/*/metrics.json")
    ]
    assert sorted(report["run"]["layers"] for report in reports) == [[1], [2]]


def test_jobs_of_a_cluster_are_configured() -> None:
    if importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        pytest.skip("needs hydra-submitit-launcher")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", ["hydra/launcher=slurm"], return_hydra_config=True)
    launcher = cfg.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.gpus_per_node, launcher.cpus_per_task) == (1, 8)
