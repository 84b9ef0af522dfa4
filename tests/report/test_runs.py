"""Reading run folders, and what becomes of torn and foreign files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ivcp.core.errors import UserError
from ivcp.report.runs import Spread, baseline_of, find_runs, merge_repeats, read_run


def test_a_run_is_read_with_every_number(make_run: Any) -> None:
    folder = make_run("a", pruner="fastv", value=0.7, ratio=0.3, layer=4, failed=1)
    run = read_run(folder / "metrics.json")
    assert (run.model, run.dataset, run.pruner) == ("tiny", "shapes", "fastv")
    assert (run.ratio, run.layer, run.primary_metric, run.value) == (0.3, "4", "acc@0.5", 0.7)
    assert (run.keep_ratio, run.layer_average_ratio) == (0.3, 0.5)
    assert (run.kv_cache_ratio, run.kv_cache_bytes, run.flops_ratio) == (0.4, 1e6, 0.6)
    assert run.prefill_ms == Spread(30.0, 28.0, 33.0)
    assert (run.pruning_overhead_ms.median, run.decode_ms.median) == (1.0, 7.0)
    assert (run.samples, run.failed_samples, run.unparsed_rate) == (200, 1, 0.25)


def test_a_run_that_holds_only_what_it_must_is_read(make_run: Any) -> None:
    folder = make_run("a", pruner="fastv", value=float("nan"), layer=[2, 6])
    content = json.loads((folder / "metrics.json").read_text())
    del content["efficiency"], content["tokens"], content["run"]["samples"]
    (folder / "metrics.json").write_text(json.dumps(content))
    run = read_run(folder / "metrics.json")
    assert run.value is None
    assert run.keep_ratio is None
    assert run.prefill_ms == Spread()
    assert run.samples is None
    assert run.layer == "2+6"


def test_a_suite_holds_a_run_for_each_set_with_results(make_run: Any) -> None:
    folder = make_run(
        "a",
        pruner="ivcp",
        value=0.7,
        dataset="general",
        primary_metric="average",
        layer=4,
        told={"unit": "%", "metric": None},
        values={"mme/total": 1134.7, "mme/unparsed_rate": 0.5, "pope/f1": None},
        tasks={
            "mme": {"primary_metric": "total", "unit": "", "metric": "a.Mme"},
            "pope": {"primary_metric": "f1", "unit": "%", "metric": "a.Pope"},
            "empty": {"primary_metric": "f1", "unit": "%", "metric": "a.Pope"},
            "torn": 3,
        },
    )
    run = read_run(folder / "metrics.json")
    assert (run.metric, run.unit, run.group) == ("", "%", "")
    mme, pope = run.tasks
    assert (mme.dataset, mme.group, mme.primary_metric, mme.value) == (
        "mme",
        "general",
        "total",
        1134.7,
    )
    assert (mme.unit, mme.metric, mme.unparsed_rate) == ("", "a.Mme", 0.5)
    assert (mme.pruner, mme.ratio, mme.layer, mme.setting) == ("ivcp", 0.5, "4", run.setting)
    assert (mme.keep_ratio, mme.samples, mme.tasks) == (None, None, ())
    assert (pope.dataset, pope.value) == ("pope", None)


def test_notes_and_the_judge_speak(make_run: Any) -> None:
    judge = {"by": "rule", "reason": "Rules stood in."}
    told = make_run("a", pruner="ivcp", value=0.7, notes=["One.", 2, "Two."], judge=judge)
    assert read_run(told / "metrics.json").notes == ("One.", "Two.", "Rules stood in.")
    silent = make_run("b", pruner="ivcp", value=0.7, judge={"reason": None}, notes=None)
    assert read_run(silent / "metrics.json").notes == ()


def test_an_older_run_is_a_fraction_without_a_metric(make_run: Any) -> None:
    run = read_run(make_run("a", pruner="ivcp", value=0.7) / "metrics.json")
    assert (run.unit, run.metric, run.tasks, run.notes) == ("%", "", (), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"metrics": {"acc', "not complete JSON"),
        ("", "not complete JSON"),
        ("[1, 2]", "not the result of a run"),
        ('{"loss": 3}', "not the result of a run"),
        ('{"metrics": 1, "run": 2}', "not the result of a run"),
        ('{"metrics": {"a": 1}, "run": {"model": 1}}', "not the result of a run"),
        ("[" * 100_000, "not complete JSON"),
    ],
)
def test_torn_and_foreign_files_are_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_run(tmp_path / "metrics.json")


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not complete JSON"):
        read_run(tmp_path / "metrics.json")


def test_runs_are_found_below_once_and_problems_counted(make_run: Any, tmp_path: Path) -> None:
    make_run("sweep/0", pruner="none", value=0.9)
    one = make_run("sweep/1", pruner="random", value=0.5)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/metrics.json").write_text("{")
    (tmp_path / "empty").mkdir()
    places = [tmp_path, one, one / "metrics.json", tmp_path / "empty", tmp_path / "nowhere"]
    runs, problems = find_runs(places)
    assert sorted(run.pruner for run in runs) == ["none", "random"]
    assert len(problems) == 3
    assert all(sentence.endswith((".", "?")) for sentence in problems)


def test_repeated_runs_become_the_latest(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="none", value=0.9, ratio=0.5, date="2026-01-01")
    make_run("b", pruner="none", value=0.9, ratio=0.3, date="2026-01-02")
    make_run("c", pruner="none", value=0.8, ratio=0.3, date="2026-01-01")
    make_run("d", pruner="random", value=0.5, ratio=0.3)
    make_run("e", pruner="random", value=0.5, ratio=0.3)
    for name, seed in (("f", 0), ("g", 0), ("h", 1)):
        config = {"pruner": {"seed": seed}}
        make_run(name, pruner="random", value=0.5, ratio=0.3, config=config, date=f"2026-{name}")
    runs, _ = find_runs([tmp_path])
    merged, left_out = merge_repeats(runs)
    assert left_out == 2
    assert sorted(run.folder.name for run in merged) == ["b", "c", "d", "e", "g", "h"]


def test_a_baseline_shares_model_dataset_and_setting(make_run: Any, tmp_path: Path) -> None:
    make_run("base", pruner="none", value=0.9)
    later: dict[str, Any] = {"pruner": "none", "value": 0.8, "date": "2026-02-01"}
    make_run("other_samples", samples=10, **later)
    make_run("other_pixels", config={"model": {"max_pixels": 3}}, **later)
    make_run("other_model", model="big", **later)
    make_run("other_dataset", dataset="shapes_count", **later)
    make_run("pruned", pruner="random", value=0.5)
    make_run("alone", pruner="random", value=0.5, dataset="shapes_pope")
    runs = {run.folder.name: run for run in find_runs([tmp_path])[0]}
    assert baseline_of(runs["pruned"], runs.values()) is runs["base"]
    assert baseline_of(runs["alone"], runs.values()) is None
