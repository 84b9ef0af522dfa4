from __future__ import annotations

import copy
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from made_results import CONFIG, made_results, unpruned_results, write_run

import ivcp
from ivcp.core.errors import UserError
from ivcp.results.comparability import differences
from ivcp.results.load import find_baseline, find_runs, read_results, were_paired
from ivcp.results.prediction import Prediction
from ivcp.results.run_folder import RunFolder


def test_the_baseline_is_the_latest_comparable_unpruned_run(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, results)
        for name, results in {
            "pruned": made_results(date="2026-05"),
            "other seed": unpruned_results(config={**CONFIG, "seed": 1}, date="2026-04"),
            "other limit": unpruned_results(config={**CONFIG, "limit": 2}, date="2026-04"),
            "other dtype": unpruned_results(dtype="bfloat16", date="2026-04"),
            "right": unpruned_results(0.4, date="2026-03"),
            "older": unpruned_results(date="2026-02"),
        }.items()
    ]
    baseline = find_baseline(made_results().run, runs)
    assert baseline is not None
    assert baseline.folder.name == "right"
    assert find_baseline(made_results(dataset="other").run, runs) is None


def test_where_a_dataset_lies_makes_no_difference() -> None:
    tasks = {"a": {"dataset": {"name": "A", "root": "/here", "photos": None}}}
    config = {**CONFIG, "dataset": {"download": True, "tasks": tasks}, "judge": {}}
    moved = copy.deepcopy({**config, "dataset": {"download": False, "tasks": tasks}, "judge": None})
    moved["dataset"]["tasks"]["a"]["dataset"]["root"] = "/there"
    run, other = made_results(config=config).run, unpruned_results(config=moved).run
    assert differences(run, other) == []
    moved["dataset"]["tasks"]["a"]["dataset"]["name"] = "B"
    other = unpruned_results(config=moved).run
    assert differences(run, other) == ["dataset.tasks.a.dataset.name"]


def test_runs_of_one_sweep_and_trainer_are_paired(tmp_path: Path) -> None:
    run = write_run(tmp_path / "sweep" / "0", made_results())
    assert were_paired(run, write_run(tmp_path / "sweep" / "1", unpruned_results()))
    assert not were_paired(run, write_run(tmp_path / "alone", unpruned_results()))
    two = unpruned_results(processes=2)
    assert not were_paired(run, write_run(tmp_path / "sweep" / "2", two))
    assert not were_paired(
        run, write_run(tmp_path / "sweep" / "4", unpruned_results(seconds=1, device="gpu"))
    )
    other = unpruned_results(config={**CONFIG, "trainer": {"devices": 2}})
    assert not were_paired(run, write_run(tmp_path / "sweep" / "3", other))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"run": ', "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
        ("{}", "metrics: Field required"),
        ("[1]", "the file: "),
    ],
)
def test_what_is_no_result_is_one_sentence(tmp_path: Path, content: str, reason: str) -> None:
    write_run(tmp_path / "good", made_results())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "metrics.json").write_text(content)
    runs, (problem,) = find_runs([tmp_path])
    assert [run.folder.name for run in runs] == ["good"]
    with pytest.warns(UserWarning, match=r"bad/metrics\.json is not the result"):
        assert len(ivcp.load_runs(tmp_path)) == 1
    with pytest.raises(UserError, match=r"bad/metrics\.json is not the result"):
        ivcp.load_runs(tmp_path / "bad")
    assert "bad/metrics.json is not the result of a run (" in problem
    assert reason in problem


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"schema_version": 2},
        {"samples": "many"},
        {"primary_metric": {"name": "a", "value": float("nan")}},
    ],
)
def test_unknown_fields_versions_and_numbers_are_refused(tmp_path: Path, change: Any) -> None:
    content = json.loads(made_results().text())
    content["run"] |= change
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not the result of a run"):
        read_results(tmp_path / "metrics.json")


def test_neither_folders_nor_pipes_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.json")
    with pytest.raises(UserError, match="is missing or is no file"):
        read_results(tmp_path / "metrics.json")
    _, problems = find_runs([tmp_path, tmp_path / "nothing"])
    assert len(problems) == 2


def test_a_closed_folder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat

    def refuse(path: Path, **options: Any) -> os.stat_result:
        if path.parent == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    (tmp_path / "run.json").mkdir()
    with pytest.raises(UserError, match=r"run\.json cannot be read \(Is a directory\), so nobody"):
        RunFolder(tmp_path).identity()
    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "is_file", lambda path: bool(path.stat()))
    with pytest.raises(UserError, match=r"metrics\.json cannot be read \(Permission denied\)"):
        read_results(tmp_path / "metrics.json")


def test_a_closed_folder_and_an_impossible_path_are_a_sentence_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "runs" / "open", made_results())
    write_run(tmp_path / "runs" / "closed", made_results())
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    runs, problems = find_runs([tmp_path / "runs", "a" * 5000, "\x1b[31mred"])
    assert [run.folder.name for run in runs] == ["open"]
    assert problems[0] == f"{tmp_path}/runs/closed cannot be read (Permission denied)."
    assert [len(problems), problems[2]] == [3, "red does not exist."]


def test_runs_and_predictions_as_tables(tmp_path: Path) -> None:
    write_run(tmp_path / "a", made_results())
    write_run(tmp_path / "b", unpruned_results())
    write_run(tmp_path / "b" / "before", unpruned_results())  # which b has replaced, or is about to
    lines = [Prediction(index=n, id=f"s{n}", answer=(1, 2, 3, 4), score=n / 2) for n in (1, 0)]
    (tmp_path / "a" / "predictions.jsonl").write_text("".join(line.line() for line in lines))
    runs = ivcp.load_runs(tmp_path)
    assert list(runs["pruner"]) == ["fastv", "none"]
    assert list(runs["value"]) == [0.75, 0.5]
    assert runs.loc[0, "efficiency.language_prefill_ms.median"] == 2.0
    predictions = ivcp.load_predictions(tmp_path / "a")
    assert list(predictions["id"]) == ["s0", "s1"]
    assert predictions.loc[1, "answer"] == (1.0, 2.0, 3.0, 4.0)


def test_damaged_predictions_are_named_by_their_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", made_results())
    path = tmp_path / "a" / "predictions.jsonl"
    line = Prediction(index=0, id="s", score=1).line()
    for damaged in ("5\n", "[1,2]\n", "[" * 100_000 + "\n", '{"index": 1, "id": "x"}\n', "\0\n"):
        path.write_text(line + damaged)
        with pytest.raises(UserError, match=r"predictions\.jsonl is damaged at line 2"):
            ivcp.load_predictions(tmp_path / "a")
    path.write_text(line + line)
    with pytest.raises(UserError, match="holds the sample s twice"):
        ivcp.load_predictions(tmp_path / "a")
