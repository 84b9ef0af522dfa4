"""What ends a run, and what is left of it: signals, killed and hanging processes, odd folders."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import answered, end, session, start, wait_for_answers

from ivcp.core.errors import UserError
from ivcp.datasets.shapes import Shapes
from ivcp.evaluation.evaluate import evaluate
from ivcp.pruners.random import RandomPruning


@pytest.fixture
def words(model_folder: Path) -> list[str]:
    """A run of many small batches, with a process that loads data."""
    return [
        f"model.path={model_folder}", "pruner=random", "pruner.layer=2", "logger=none", "workers=1",
        "trainer=cpu", "pictures=2", "batch_size=2", "dataset.size=200", "baseline=null",
        "generation.max_new_tokens=3",
    ]  # fmt: skip


def wait_for_nobody(leader: int, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while session(leader):
        assert time.monotonic() < until, "a process outlives its run"
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_behind_its_batch(number, server, words, tmp_path) -> None:
    folder = tmp_path / "run"
    process = start(server, folder, *words)
    wait_for_answers(process, folder, 3)
    os.kill(process.pid, number)
    process.join(60)
    done, text = len(answered(folder)), (tmp_path / "said").read_text()
    assert process.exitcode == 128 + number, text
    assert done % 2 == 0
    sentence = f"Interrupted after {done} of 200; the same command with resume=true goes on."
    assert sentence in text
    assert sentence in (folder / "run.log").read_text()
    assert "Traceback" not in text
    wait_for_nobody(process.pid)
    end(start(server, folder, *words, "resume=true"), folder)
    assert len(list((folder / "pictures").iterdir())) == 2
    assert f"{done} of 200 answers were there already" in (tmp_path / "said").read_text()


def test_a_signal_stops_all_processes_of_a_run(server, words, tmp_path) -> None:
    folder = tmp_path / "run"
    process = start(server, folder, *words, "trainer=ddp_cpu", "trainer.strategy=ddp_fork")
    wait_for_answers(process, folder, 6)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    text = (tmp_path / "said").read_text()
    assert process.exitcode == 143, text
    assert f"Interrupted after {len(answered(folder))} of 200" in text
    wait_for_nobody(process.pid)


def test_a_signal_stops_a_sweep(server, words, tmp_path) -> None:
    folder = tmp_path / "sweep"
    words = ["-m", *words, "ratio=0.7,0.5", "hydra.sweep.subdir=${ratio}"]
    process = start(server, folder, *words, where="hydra.sweep.dir")
    wait_for_answers(process, folder / "0.7", 1)
    assert process.is_alive(), (tmp_path / "said").read_text()
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143
    assert not (folder / "0.5").exists()


def test_no_process_outlives_a_run_that_is_killed(server, words, tmp_path) -> None:
    process = start(server, tmp_path / "run", *words)
    wait_for_answers(process, tmp_path / "run", 1)
    assert len(session(process.pid)) > 1
    process.kill()
    process.join()
    wait_for_nobody(process.pid)


@dataclass(frozen=True, kw_only=True)
class Stuck(Shapes):
    """Scenes of which the sixth never arrives: the process that loads it hangs or is killed."""

    killed: bool = False

    def __getitem__(self, index: int):
        if index == 5:
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1000)
        return super().__getitem__(index)


@pytest.mark.parametrize(("killed", "reason"), [(False, "timed out"), (True, r"worker \(pid")])
def test_a_loader_that_hangs_or_dies_is_one_sentence(parts, killed, reason) -> None:
    parts["dataset"] = Stuck(task="grounding", size=8, killed=killed)
    parts["config"] |= {"workers": 1, "worker_timeout": 2}
    with pytest.raises(UserError, match=f"Loading data came to nothing .DataLoader {reason}"):
        evaluate(**parts)
    count = len(answered(Path(parts["folder"])))
    assert count in (0, 2, 4) if killed else count == 4


def test_logits_that_are_not_finite_fail_their_samples(parts, monkeypatch) -> None:
    load = type(parts["model"]).load

    def spoiled(self, gpus):
        model, processor = load(self, gpus)
        with torch.no_grad():
            model.lm_head.weight[0, 0] = torch.nan
        return model, processor

    monkeypatch.setattr(type(parts["model"]), "load", spoiled)
    with pytest.raises(UserError, match=r"All 3 samples failed, .* logits are not finite"):
        evaluate(**parts)
    report = json.loads((Path(parts["folder"]) / "metrics.json").read_text())
    assert report["run"]["failed_samples"] == 3


@pytest.fixture
def finished(parts) -> Path:
    evaluate(**parts)
    return Path(parts["folder"])


def again(parts: dict[str, Any], resume: bool) -> None:
    evaluate(**parts | {"config": {**parts["config"], "resume": resume}})


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("content", [None, "", '{"model": "x', "[1]", "5", "[" * 100_000])
def test_answers_whose_run_is_not_known_are_never_touched(
    parts, finished, content, unfinished, resume
) -> None:
    if unfinished:
        (finished / "metrics.json").unlink()
    if content is None:
        (finished / "run.json").unlink()
    else:
        (finished / "run.json").write_text(content)
    before = {path: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=r"run\.json is (missing|damaged), so nobody knows whose"):
        again(parts, resume)
    assert {path: path.read_bytes() for path in finished.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("content", ['{"metrics": {', "{}"])
def test_damaged_results_are_set_aside_and_made_anew(parts, finished, content) -> None:
    results = json.loads((finished / "metrics.json").read_text())
    answers = (finished / "predictions.jsonl").read_text()
    (finished / "metrics.json").write_text(content)
    with pytest.raises(UserError, match="a run that did not finish; go on with resume=true"):
        again(parts, resume=False)
    again(parts, resume=True)
    assert (finished / "metrics.damaged.json").read_text() == content
    assert (finished / "predictions.jsonl").read_text() == answers
    assert json.loads((finished / "metrics.json").read_text())["metrics"] == results["metrics"]


def test_a_folder_in_place_of_answers_is_one_sentence(parts, finished) -> None:
    (finished / "predictions.jsonl").unlink()
    (finished / "predictions.jsonl").mkdir()
    (finished / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"predictions\.jsonl is missing or is no file"):
        again(parts, resume=True)


def test_other_settings_do_not_replace_finished_answers(parts, finished) -> None:
    before = (finished / "predictions.jsonl").read_bytes()
    pruner = RandomPruning(keep_ratio=0.25, layer=2)
    config = {**parts["config"], "pruner": vars(pruner)}
    with pytest.raises(UserError, match=r"are of another run: pruner\.keep_ratio"):
        evaluate(**parts | {"pruner": pruner, "config": config})
    assert (finished / "predictions.jsonl").read_bytes() == before


def test_a_users_copies_are_neither_read_nor_removed(parts, finished) -> None:
    lines = [json.loads(line) for line in (finished / "predictions.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**line, "score": 1.0}) + "\n" for line in lines)
    copies = [finished / f"predictions{name}.jsonl" for name in (".backup", "_of_monday", ".0x")]
    for path in copies:
        path.write_text(text)
    (finished / "metrics.json").unlink()
    again(parts, resume=True)
    assert (finished / "predictions.jsonl").read_text() != text
    again(parts, resume=False)
    assert [path.read_text() for path in copies] == [text] * 3


@pytest.mark.parametrize(
    "change", [{"id": "other"}, {"index": 7}, {"index": 1}], ids=lambda change: str(change)
)
def test_answers_of_other_samples_are_never_used(parts, finished, change) -> None:
    path = finished / "predictions.jsonl"
    (finished / "metrics.json").unlink()
    line, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(json.dumps(json.loads(line) | change) + "\n" + "".join(lines[1:]))
    before = path.read_bytes()
    with pytest.raises(UserError, match="is of no sample of this dataset; nothing was changed"):
        again(parts, resume=True)
    assert path.read_bytes() == before


def test_a_file_of_nothing_but_foreign_lines_is_kept_aside(parts, finished) -> None:
    (finished / "predictions.jsonl").write_text("notes of mine\n")
    (finished / "metrics.json").unlink()
    again(parts, resume=True)
    assert (finished / "predictions.damaged.jsonl").read_text() == "notes of mine\n"


@pytest.mark.parametrize("damage", ["5", "[1,2]", "[" * 100_000, '{"index": 1, "id": "x"}', "\0"])
def test_damaged_lines_are_run_again_and_kept_aside(parts, finished, damage) -> None:
    path = finished / "predictions.jsonl"
    first, _, *rest = path.read_text().splitlines(keepends=True)
    text = f"{first}{damage}\n" + "".join(rest)
    path.write_text(text)
    (finished / "metrics.json").unlink()
    again(parts, resume=True)
    assert len(path.read_text().splitlines()) == 3
    assert (finished / "predictions.damaged.jsonl").read_text() == text


def test_overlays_that_an_interruption_cost_are_made_up(parts, finished) -> None:
    (overlay,) = (finished / "pictures").iterdir()
    before = overlay.read_bytes()
    shutil.rmtree(finished / "pictures")
    (finished / "metrics.json").unlink()
    again(parts, resume=True)
    assert overlay.read_bytes() == before


def test_nothing_to_resume_is_said(parts, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    again(parts, resume=True)
    assert "resume=true found nothing to resume" in caplog.text
