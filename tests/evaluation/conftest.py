"""A small random model on disk and the parts of an evaluation of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
from processes import make_server
from untrained import save_untrained

from ivcp.datasets.shapes import Shapes
from ivcp.metrics.grounding import GroundingMetrics
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.pruners.random import RandomPruning
from ivcp.visualize.overlay import draw_overlay

LAYERS = 4


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained Qwen2.5-VL with four layers."""
    return save_untrained(tmp_path_factory.mktemp("tiny") / "model", LAYERS)


@pytest.fixture
def family(model_folder: Path) -> Qwen25VL:
    return Qwen25VL(path=str(model_folder), dtype="float32")


@pytest.fixture
def parts(family: Qwen25VL, tmp_path: Path) -> dict[str, Any]:
    """Keyword arguments of `evaluate`: three samples in batches of two."""
    folder = tmp_path / "run"
    folder.mkdir()
    return {
        "pruner": RandomPruning(keep_ratio=0.5, layer=2),
        "model": family,
        "dataset": Shapes(task="grounding", size=3),
        "metric": GroundingMetrics(),
        "trainer": partial(
            lightning.Trainer,
            accelerator="cpu",
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        ),
        "logger": None,
        "draw": draw_overlay,
        "names": {"model": "tiny", "pruner": "random", "dataset": "shapes"},
        "config": {
            "pruner": {"layer": 2},
            "ratio": 0.5,
            "batch_size": 2,
            "workers": 0,
            "limit": None,
            "pictures": 1,
            "seed": 0,
            "baseline": None,
            "generation": {"max_new_tokens": 4, "do_sample": False},
        },
        "folder": str(folder),
    }


@pytest.fixture(scope="session")
def server() -> Any:
    return make_server()
