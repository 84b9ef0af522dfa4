import copy
import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from ivcp.core.errors import UserError
from ivcp.evaluation.baseline import differences, find_baseline
from ivcp.evaluation.screen import notes, result_table

CONFIG = {"model": {"path": "m"}, "dataset": {"size": 3}, "seed": 0, "limit": None}


def report(pruner: str = "none", acc: float = 0.5, **changed) -> dict:
    return {
        "metrics": {"acc@0.5": acc},
        "efficiency": {"pruning_overhead_ms": {"median": 2.0}, "kv_cache_bytes": 1e6 * acc},
        "tokens": {},
        "run": {
            "model": "tiny", "pruner": pruner, "dataset": "shapes", "samples": 3,
            "failed_samples": 1, "config": CONFIG | changed, "points": [], "tasks": {},
            "notes": [], "judge": {"reason": None},
        },
    }  # fmt: skip


def write(folder: Path, content: dict, age: int) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(content))
    os.utime(folder / "metrics.json", (1e9 - age, 1e9 - age))


def test_auto_takes_the_newest_comparable_unpruned_run(tmp_path: Path) -> None:
    write(tmp_path / "a" / "new-but-pruned", report("ivcp", 0.1), age=0)
    write(tmp_path / "a" / "other-seed", report(acc=0.2, seed=1), age=1)
    write(tmp_path / "a" / "other-limit", report(acc=0.3, limit=2), age=2)
    write(tmp_path / "b" / "right", report(acc=0.4), age=3)
    write(tmp_path / "b" / "older", report(acc=0.5), age=4)
    (tmp_path / "b" / "unfinished").mkdir()
    found = find_baseline("auto", CONFIG, (tmp_path / "a", tmp_path / "b", tmp_path / "none"))
    assert found is not None
    assert found["metrics"] == {"acc@0.5": 0.4}


def test_a_torn_file_of_another_run_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "right", report(), age=1)
    write(tmp_path / "torn", report(), age=0)
    (tmp_path / "torn" / "metrics.json").write_text('{"run": ')
    assert find_baseline("auto", CONFIG, (tmp_path,)) is not None


def test_none_and_nothing_there(tmp_path: Path) -> None:
    assert find_baseline(None, CONFIG) is None
    assert find_baseline("auto", CONFIG, (tmp_path,)) is None


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="baseline must be null, auto, or the folder"):
        find_baseline(str(tmp_path), CONFIG)


def test_a_named_folder_may_differ_and_the_reader_is_told(tmp_path: Path) -> None:
    write(tmp_path / "run", report(seed=1), age=0)
    found = find_baseline(str(tmp_path / "run"), CONFIG)
    assert found is not None
    assert differences(found, CONFIG) == ["seed"]
    assert "The baseline has another seed" in notes(report("ivcp"), found, ["seed"])


def test_where_a_dataset_lies_makes_no_difference(tmp_path: Path) -> None:
    tasks = {"a": {"dataset": {"name": "A", "root": "/here", "photos": None}}}
    config = {**CONFIG, "dataset": {"download": True, "tasks": tasks}}
    finished = report(dataset={"download": False, "tasks": copy.deepcopy(tasks)})
    finished["run"]["config"]["dataset"]["tasks"]["a"]["dataset"]["root"] = "/there"
    assert differences(finished, config) == []
    finished["run"]["config"]["dataset"]["tasks"]["a"]["dataset"]["name"] = "B"
    assert differences(finished, config) == ["dataset"]


def test_the_table_shows_both_runs_and_the_change() -> None:
    screen = Console(file=io.StringIO(), width=100)
    screen.print(result_table(report("ivcp", 0.4), report(acc=0.5)))
    lines = {
        line.split("│")[1].strip(): line
        for line in screen.file.getvalue().splitlines()
        if "│" in line
    }
    assert [cell.strip() for cell in lines["acc@0.5"].split("│")[2:5]] == [
        "40.0 %",
        "50.0 %",
        "-10.0 pts",
    ]
    assert [cell.strip() for cell in lines["KV cache"].split("│")[2:5]] == [
        "0.40 MB",
        "0.50 MB",
        "x 0.80",
    ]
    assert "2.00 ms" in lines["pruning overhead"]


def test_failed_samples_and_a_missing_baseline_are_told() -> None:
    text = notes(report("ivcp"), None, [])
    assert "3 samples, 1 failed" in text
    assert "run pruner=none" in text
    assert "run pruner=none" not in notes(report("none"), None, [])
