"""Every video benchmark through run.py, on a random model that sees two frames of each clip."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import RUN, run_py
from published_videos import WRITERS, write_all
from untrained import save_untrained

from ivcp.report.__main__ import main as report

QUICK = (
    "trainer=cpu", "logger=none", "workers=0", "pictures=0", "generation.max_new_tokens=3",
    "model.frames=2", "pruner=random", "ratio=0.5", "pruner.layer=2", "baseline=null",
)  # fmt: skip
KEYS = {  # what metrics.json has of each set, beside `unparsed_rate`
    "videomme": {"accuracy", "duration/short", "domain/Knowledge", "sub_category/Law"},
    "mvbench": {"accuracy", "macro_accuracy", "task_type/fine_grained_pose"},
    "longvideobench_val": {"accuracy", "duration_group/15", "question_category/S2O"},
    "mlvu": {"accuracy", "macro_accuracy", "task_type/plotQA", "task_type/count"},
    "egoschema_subset": {"accuracy"},
    "tempcompass": {
        "average", "tempcompass_choice/dim/action", "tempcompass_yes_no/dim/action",
        "tempcompass_matching/dim/order",
    },
    "charades_sta": {"mean_iou", "r@0.3", "r@0.5", "r@0.7"},
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return f"model.path={save_untrained(tmp_path_factory.mktemp('video') / 'model', layers=4)}"


@pytest.fixture
def evaluate(model, tmp_path, monkeypatch, capsys):
    """Calls run.py; its metrics.json and predictions."""

    def call(*words: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        code = run_py(*words, model, *QUICK, f"data.root={tmp_path}", "hydra.run.dir=run")
        assert code == 0, capsys.readouterr()
        lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
        return json.loads((tmp_path / "run" / "metrics.json").read_text()), [
            *map(json.loads, lines)
        ]

    monkeypatch.chdir(tmp_path)
    return call


@pytest.mark.parametrize("name", WRITERS)
def test_a_set_is_evaluated(name, evaluate, tmp_path) -> None:
    WRITERS[name](tmp_path)
    metrics, lines = evaluate(f"dataset={name}")
    assert {"unparsed_rate", *KEYS[name]} <= set(metrics["metrics"])
    for line in lines:
        assert line["failed"] is None
        assert line["kept_tokens"] == line["visual_tokens"] / 2 > 0
        assert line["prompt"].count("<|video_pad|>") == 1
    assert "are published." in json.dumps(metrics["run"])


def test_a_broken_and_a_missing_clip_are_counted_and_the_run_goes_on(evaluate, tmp_path) -> None:
    home = WRITERS["mvbench"](tmp_path)
    (home / "video" / "nturgbd" / "clip.mp4").unlink()
    (home / "video" / "clevrer" / "video_validation" / "clip.mp4").write_bytes(b"no clip")
    metrics, lines = evaluate("dataset=mvbench", "batch_size=3")
    failed = {line["id"]: line["failed"] for line in lines if line["failed"]}
    assert set(failed) == {
        f"{task}-{n}" for task in ("object_existence", "fine_grained_pose") for n in (0, 1)
    }
    assert "clip.mp4 cannot be opened" in failed["object_existence-0"]
    assert "Expected the clip nturgbd/clip.mp4" in failed["fine_grained_pose-1"]
    assert all(line["labels"]["task_type"] for line in lines)
    assert metrics["metrics"]["task_type/object_existence"] == 0
    assert "The set is partial: 2 of 8 questions" in json.dumps(metrics["run"])


def test_spans_of_time_are_in_predictions_and_in_the_report(evaluate, tmp_path, capsys) -> None:
    WRITERS["charades_sta"](tmp_path)
    _, lines = evaluate("dataset=charades_sta")
    assert [line["answer"] for line in lines] == [[24.3, 30.4], [0.0, 1.5]]
    assert {line["task"] for line in lines} == {"temporal_grounding"}
    assert report([str(Path("run")), "--out", "page"]) == 0
    assert "mean_iou" in (tmp_path / "page" / "table.md").read_text()
    assert (tmp_path / "page" / "report.html").stat().st_size > 0


ANSWER = ("id", "failed", "prompt", "prediction", "parsed", "score", "kept")


def answers(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [{name: json.loads(line)[name] for name in ANSWER} for line in lines]


def test_every_set_on_two_processes_and_resumed(evaluate, model, tmp_path) -> None:
    write_all(tmp_path)
    (clip, *_) = sorted(tmp_path.rglob("0a0.mp4"))
    clip.write_bytes(b"no clip")  # of EgoSchema
    words = ("dataset=video", "batch_size=1")
    evaluate(*words)
    expected = answers(tmp_path / "run")
    assert [answer["id"] for answer in expected if answer["failed"]] == ["egoschema_subset/0a0"]
    done = subprocess.run(
        [
            sys.executable, RUN, *words, model, *QUICK, "trainer=ddp_cpu", f"data.root={tmp_path}",
            "hydra.run.dir=two",
        ],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert answers(tmp_path / "two") == expected

    predictions = tmp_path / "run" / "predictions.jsonl"
    lines = predictions.read_text().splitlines(keepends=True)
    predictions.write_text("".join(lines[: len(lines) // 2]))
    (tmp_path / "run" / "metrics.json").unlink()
    evaluate(*words, "resume=true")
    assert answers(tmp_path / "run") == expected
    assert predictions.read_text().startswith("".join(lines[: len(lines) // 2]))


def test_the_suite_runs_every_set(evaluate, tmp_path) -> None:
    write_all(tmp_path)
    metrics, lines = evaluate("dataset=video", "dataset.limit_each=1")
    tasks = {line["labels"]["task"] for line in lines}
    assert len(lines) == len(tasks) == 9
    assert {f"{task}/unparsed_rate" for task in tasks} <= set(metrics["metrics"])
    assert metrics["metrics"].keys() >= {"average", "charades_sta/mean_iou", "mlvu/accuracy"}
