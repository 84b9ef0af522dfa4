"""Every family that takes videos evaluates a question of every video benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import run_py
from expected import EXPECTED
from published_videos import write_all
from test_loading import options, weights

from ivcp.testing import SMALL

FAMILIES = [name for name in EXPECTED if getattr(SMALL[name].family, "video_token", "")]


def test_families_with_videos_are_found() -> None:
    assert {"qwen2vl", "qwen25vl", "qwen3vl"} <= set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_set_is_evaluated(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    option = next(name for name, kind in options().items() if kind is SMALL[family].family)
    write_all(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    words = [
        f"model={option}", f"model.path={weights(family, tmp_path / 'weights')}",
        "model.dtype=float32", "model.frames=2", "pruner=random", "ratio=0.5", "pruner.layer=2",
        "dataset=video", "dataset.limit_each=1", f"data.root={tmp_path / 'data'}", "trainer=cpu",
        "logger=none", "workers=0", "batch_size=3", "pictures=0", "generation.max_new_tokens=2",
        "hydra.run.dir=run",
    ]  # fmt: skip
    assert run_py(*words) == 0, capsys.readouterr()
    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").open()]
    assert len({line["labels"]["task"] for line in lines}) == len(lines) == 9
    for line in lines:
        assert line["failed"] is None
        kept = [round(0.5 * length) for length in lengths(line)]
        assert line["kept_tokens"] == sum(kept) > 0


def lengths(line: dict[str, Any]) -> list[int]:
    """Visual tokens of each video, or of each frame that is shown as an image."""
    return [
        sum(grid["rows"] * grid["columns"] for grid in image["grids"]) for image in line["images"]
    ]
