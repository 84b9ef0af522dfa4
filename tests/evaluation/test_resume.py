"""A run that is killed at any moment goes on, and ends as if it had not been."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from processes import end, start, wait_for_answers
from test_distributed import outcome
from test_judging import Grades, Script

from ivcp.core.errors import UserError
from ivcp.datasets.shapes import Shapes
from ivcp.evaluation.evaluate import evaluate
from ivcp.evaluation.module import Evaluation
from ivcp.pruners.random import RandomPruning
from ivcp.results.run_folder import RunFolder

ROOT = Path(__file__).parents[2]


class StopError(Exception):
    pass


@pytest.fixture
def seven(parts):
    parts["dataset"] = Shapes(task="grounding", size=7)
    return parts


def stop_after(monkeypatch, batches: int) -> None:
    """Let evaluation stop when so many batches are done."""
    step, calls = Evaluation.predict_step, []

    def counted(self, batch, batch_idx):
        calls.append(batch.indices)
        if len(calls) > batches:
            raise StopError
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Evaluation, "predict_step", counted)


def interrupt(parts: dict[str, Any], monkeypatch, name: str, batches: int) -> Path:
    folder = Path(parts["folder"]).parent / name
    folder.mkdir()
    with monkeypatch.context() as patch, pytest.raises(StopError):
        stop_after(patch, batches)
        evaluate(**parts | {"folder": str(folder)})
    return folder


def resume(parts: dict[str, Any], folder: Path, **changed: Any) -> tuple[list[Any], dict[str, Any]]:
    folder.rename(folder.with_name("moved"))  # outcome makes the folder itself
    config = {**parts["config"], "resume": str(folder.with_name("moved"))}
    return outcome(parts | {"config": config}, folder.name, **changed)


def test_finished_batches_are_not_run_again(seven, monkeypatch) -> None:
    whole = outcome(seven, "whole")
    folder = interrupt(seven, monkeypatch, "cut", batches=2)
    asked = []
    step = Evaluation.predict_step

    def noted(self, batch, batch_idx):
        asked.extend(batch.indices)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Evaluation, "predict_step", noted)
    assert resume(seven, folder) == whole
    assert asked == [4, 5, 6]


def test_an_id_with_half_a_character_is_found_again(seven, monkeypatch) -> None:
    class HalfIds(Shapes):
        def sample_id(self, index: int) -> str:
            return f"{index} \ud83d"

    seven["dataset"] = HalfIds(task="grounding", size=7)
    whole = outcome(seven, "whole")
    assert [line["id"] for line in whole[0]] == [f"{index} ?" for index in range(7)]
    assert resume(seven, interrupt(seven, monkeypatch, "cut", batches=2)) == whole


def test_true_goes_on_in_the_same_folder_and_says_so(seven, monkeypatch, capsys) -> None:
    folder = interrupt(seven, monkeypatch, "cut", batches=1)
    config = {**seven["config"], "resume": True}
    evaluate(**seven | {"folder": str(folder), "config": config})
    names = {path.name for path in folder.iterdir()}
    assert names == {"metrics.json", "predictions.jsonl", "run.json", "pictures"}
    assert "2 of 7 answers were there already" in capsys.readouterr().out


def test_true_finds_the_same_run_elsewhere(seven, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    other = interrupt(seven, monkeypatch, "outputs/a", batches=3)
    assert len(list(other.glob("predictions*"))) == 1
    stop_after(monkeypatch, 1)  # more than the last batch would stop it
    evaluate(**seven | {"config": {**seven["config"], "resume": True}})
    finished = Path(seven["folder"]) / "metrics.json"
    assert json.loads(finished.read_text())["run"]["samples"] == 7
    assert [path.name for path in (finished.parent / "pictures").iterdir()] == ["000_test-0-0.png"]


def test_a_finished_run_is_not_run_again(seven, monkeypatch) -> None:
    results = evaluate(**seven).results
    monkeypatch.setattr(type(seven["model"]), "load", lambda *_: pytest.fail("loaded"))
    again = evaluate(**seven | {"config": {**seven["config"], "resume": True}})
    assert again.results == results


def test_another_judge_grades_what_the_rule_had_left(seven, monkeypatch) -> None:
    """No earlier judge's verdict stands, and what the run measured stays."""
    folder = Path(seven["folder"])
    seven["metric"], seven["dataset"] = Grades(), Shapes(task="yes_no", size=7)

    def graded(*replies: str | None, name: str, **changed: Any) -> dict[str, Any]:
        config = {**seven["config"], "resume": True, "judge": {"model": name}}
        evaluate(**seven | {"judge": Script(*replies), "config": config, **changed})
        return json.loads((folder / "metrics.json").read_text())

    evaluate(**seven)
    rule = json.loads((folder / "metrics.json").read_text())
    monkeypatch.setattr(type(seven["model"]), "load", lambda *_: pytest.fail("loaded"))
    assert graded(*["1"] * 7, name="generous")["metrics"]["mean"] == 1
    dumb = graded(*[None] * 7, name="dumb")
    assert dumb["metrics"]["mean"] == rule["metrics"]["mean"] < 1
    assert dumb["run"]["judge"]["by"] == "rule"
    half = graded(*["0.5"] * 7, name="half")
    assert half["metrics"]["mean"] == 0.5
    assert half["run"]["config"]["judge"] == {"model": "half"}
    assert half["efficiency"] == rule["efficiency"]
    for name in ("device", "dtype", "processes", "seconds", "rotary", "notes"):
        assert half["run"][name] == rule["run"][name], name
    names = {path.name for path in folder.iterdir()}
    assert names == {"metrics.json", "predictions.jsonl", "run.json", "pictures"}


def test_the_fullest_of_several_runs_goes_on(seven, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs").mkdir()
    interrupt(seven, monkeypatch, "outputs/full", batches=3)
    interrupt(seven, monkeypatch, "outputs/newer", batches=1)
    stop_after(monkeypatch, 1)  # more than the last batch would stop it
    evaluate(**seven | {"config": {**seven["config"], "resume": True}})


def test_going_on_elsewhere_overwrites_no_answers(seven, monkeypatch) -> None:
    source = interrupt(seven, monkeypatch, "source", batches=2)
    target = interrupt(seven, monkeypatch, "target", batches=1)
    config = {**seven["config"], "resume": str(source)}
    with pytest.raises(UserError, match="target holds answers of a run that did not finish"):
        evaluate(**seven | {"folder": str(target), "config": config})
    assert len(RunFolder(target).answers()) == 2
    (target / "run.json").unlink()
    (target / "predictions.jsonl").unlink()
    evaluate(**seven | {"folder": str(target)})
    finished = (target / "metrics.json").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(StopError):
        stop_after(patch, 0)
        evaluate(**seven | {"folder": str(target), "config": config})
    assert (target / "before" / "metrics.json").read_bytes() == finished


def test_results_stay_until_new_ones_are_there(seven, monkeypatch) -> None:
    evaluate(**seven)
    folder = Path(seven["folder"])
    finished = (folder / "metrics.json").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(StopError):
        stop_after(patch, 1)
        evaluate(**seven)
    assert (folder / "before" / "metrics.json").read_bytes() == finished
    assert len((folder / "before" / "predictions.jsonl").read_text().splitlines()) == 7
    evaluate(**seven | {"config": {**seven["config"], "resume": True}})
    names = {path.name for path in folder.iterdir()}
    assert names == {"metrics.json", "predictions.jsonl", "run.json", "pictures"}


@pytest.mark.parametrize("torn", ["", '{"index": 6, "id"', "\n", '{"index": 6}\n', "\0\0\0"])
def test_a_torn_line_is_run_again(seven, monkeypatch, torn) -> None:
    whole = outcome(seven, "whole")
    folder = interrupt(seven, monkeypatch, "cut", batches=2)
    path = folder / "predictions.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + torn, encoding="utf-8")
    assert resume(seven, folder) == whole


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pruner": RandomPruning(keep_ratio=0.25, layer=2)}, "pruner.keep_ratio"),
        ({"pruner": RandomPruning(keep_ratio=0.5, layer=1)}, "pruner.layer"),
        ({"generation": {"max_new_tokens": 5}}, "generation.max_new_tokens"),
        ({"dataset": {"size": 8}}, "dataset.size"),
        ({"batch_size": 3}, "batch_size"),
        ({"seed": 1}, "seed"),
        ({"model": {"max_pixels": 9}}, "model.max_pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_answers_of_another_run_are_never_used(seven, monkeypatch, change, named) -> None:
    folder = interrupt(seven, monkeypatch, "cut", batches=2)
    before = (folder / "predictions.jsonl").read_bytes()
    config = {**seven["config"], "resume": True, **change}
    if "pruner" in change:
        config["pruner"] = vars(change["pruner"])
    with pytest.raises(UserError, match=f"are of another run: .*{named}"):
        evaluate(**seven | {"folder": str(folder), "config": config})
    assert (folder / "predictions.jsonl").read_bytes() == before


def test_other_weights_data_and_code_are_another_run(seven, monkeypatch) -> None:
    folder = interrupt(seven, monkeypatch, "cut", batches=1)
    config = {**seven["config"], "resume": True}
    for name, target, value in (
        ("weights", type(seven["model"]), {"identity": lambda self: "other"}),
        ("data", Shapes, {"identity": "other"}),
    ):
        with monkeypatch.context() as patch:
            for attribute, own in value.items():
                patch.setattr(target, attribute, own, raising=False)
            with pytest.raises(UserError, match=f"another run: .*{name}"):
                evaluate(**seven | {"folder": str(folder), "config": config})
    monkeypatch.setattr("ivcp.results.provenance.code", lambda: "other")
    with pytest.raises(UserError, match="another run: code of ivcp"):
        evaluate(**seven | {"folder": str(folder), "config": config})


def test_answers_are_not_overwritten_without_a_word(seven, monkeypatch) -> None:
    folder = interrupt(seven, monkeypatch, "cut", batches=1)
    with pytest.raises(UserError, match="a run that did not finish; go on with resume=true"):
        evaluate(**seven | {"folder": str(folder)})
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 2


def test_two_runs_in_one_folder_are_refused(seven) -> None:
    with (
        RunFolder(seven["folder"]).alone(),
        pytest.raises(UserError, match="Another run is at work in"),
    ):
        evaluate(**seven)


def test_a_folder_that_cannot_be_written_is_one_sentence(seven, monkeypatch) -> None:
    def refuse(self, *_, **__):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr("ivcp.core.lock.FileLock.acquire", refuse)
    with (
        pytest.raises(UserError, match=r"cannot be written \(Read-only file system\)"),
        RunFolder(seven["folder"]).alone(),
    ):
        pass


def test_a_missing_file_of_answers_is_told_and_can_be_mended(seven, monkeypatch) -> None:
    folder = Path(seven["folder"])
    answers = RunFolder.answers
    monkeypatch.setattr(RunFolder, "answers", lambda self: answers(self)[:5])
    with pytest.raises(UserError, match=r"Expected 7 answers .* 2 are missing"):
        evaluate(**seven)
    monkeypatch.undo()
    evaluate(**seven | {"config": {**seven["config"], "resume": True}})
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 7


def test_what_is_no_run_cannot_be_resumed(seven, tmp_path) -> None:
    config = {**seven["config"], "resume": str(tmp_path)}
    with pytest.raises(UserError, match="resume must be true, false or the folder of a run"):
        evaluate(**seven | {"config": config})


@pytest.mark.parametrize(
    ("trainer", "kills"),
    [(["trainer=cpu"], 10), (["trainer=ddp_cpu", "trainer.strategy=ddp_fork"], 4)],
    ids=["one", "two"],
)
def test_a_run_killed_at_random_moments_ends_as_an_uninterrupted_one(
    trainer, kills, server, model_folder, tmp_path
) -> None:
    words = [
        f"model.path={model_folder}", "pruner=random", "pruner.layer=2", "logger=none", "workers=0",
        "pictures=0", "batch_size=2", "dataset.size=200", "generation.max_new_tokens=3",
        "resume=true",
    ]  # fmt: skip
    whole, cut, draw = tmp_path / "whole", tmp_path / "cut", random.Random(0)
    started = time.monotonic()
    process = start(server, whole, *words, *trainer)
    wait_for_answers(process, whole, 1)
    ready = time.monotonic() - started
    end(process, whole)
    for kill in range(kills):
        process = start(server, cut, *words, *trainer)
        if kill % 2:  # mostly before the first answer
            wait_for_answers(process, cut, 1, draw.uniform(0, ready))
        else:
            wait_for_answers(process, cut, draw.randint(1, 10))
        assert process.is_alive(), (tmp_path / "said").read_text()
        with suppress(ProcessLookupError):  # not even a session yet
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
    done = len(RunFolder(cut).answers()) // 2 * 2
    end(start(server, cut, *words, "trainer=cpu"), cut)
    assert without_times(cut) == without_times(whole)
    assert f"{done} of 200 answers were there" in (tmp_path / "said").read_text()
    assert not list(cut.glob("predictions.*.jsonl"))


def without_times(folder: Path) -> tuple[list[Any], Any]:
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if not k.endswith(("_ms", "_token"))} for line in lines]
    report = json.loads((folder / "metrics.json").read_text())
    return kept, (report["metrics"], report["tokens"])
