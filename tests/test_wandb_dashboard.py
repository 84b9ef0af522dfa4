"""The workspace against what a real sweep records, and the upload of a report, all offline."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import run_py
from wandb_files import OfflineRun, forget_credentials, read_runs

from ivcp.wandb import dashboard, upload

pytest.importorskip("wandb")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb_workspaces.*")

ROOT = Path(__file__).parents[1]
WORDS = (
    "-m", "pruner=none,fastv", "ratio=0.3", "limit=2", "pictures=1", "workers=0", "trainer=cpu",
    "generation.max_new_tokens=2", "logger=wandb", "logger.mode=offline", "logger.project=p",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[OfflineRun]:
    """Two runs that `run.py` made in one sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        forget_credentials(patch, folder)
        patch.chdir(folder)
        assert run_py(*WORDS) == 0
    return read_runs(folder)


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    """The workspace as `--dry-run` writes it."""
    pytest.importorskip("wandb_workspaces")
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        assert dashboard.main(["--project", "p", "--dataset", "shapes", "--dry-run"]) == 0
    return json.loads(written.getvalue())


def panels(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for section in spec["spec"]["section"]["panelBankConfig"]["sections"]:
        for panel in section["panels"]:
            found.setdefault(panel["viewType"], []).append(panel["config"])
    return found


def values(tree: Any, key: str) -> Iterator[Any]:
    """Every value under a key, at any depth."""
    if isinstance(tree, dict):
        for name, inner in tree.items():
            if name == key:
                yield inner
            yield from values(inner, key)
    elif isinstance(tree, list):
        for inner in tree:
            yield from values(inner, key)


def test_a_sweep_of_two_runs_is_one_group(runs) -> None:
    assert [run.name for run in runs] == ["tiny none 1 shapes", "tiny fastv 0.3 shapes"]
    assert [run.tags for run in runs] == [
        ("tiny", "none", "shapes", "ratio 1"),
        ("tiny", "fastv", "shapes", "ratio 0.3"),
    ]
    (group,) = {run.group for run in runs}
    sweep = runs[0].folder.parents[2]
    assert group == "/".join(sweep.parts[-2:])
    assert {(run.job_type, run.project) for run in runs} == {("evaluation", "p")}


def test_the_run_file_holds_configuration_summary_tables_and_pictures(runs) -> None:
    unpruned, pruned = runs
    assert pruned.config["pruner.keep_ratio"] == pruned.config["ratio"] == 0.3
    assert pruned.config["names.pruner"] == "fastv"
    report = json.loads((pruned.folder.parents[1] / "metrics.json").read_text())
    assert pruned.summary["primary_metric"] == report["metrics"]["acc@0.5"]
    assert pruned.summary["kv_ratio"] == report["efficiency"]["kv_cache_ratio"] < 0.7
    assert unpruned.summary["kv_ratio"] == unpruned.summary["keep_ratio"] == 1
    assert {"primary_metric", "kv_ratio"}.isdisjoint(pruned.history)
    assert pruned.history["tokens/keep_ratio"] == pruned.summary["keep_ratio"]
    assert len(pruned.table("predictions")["data"]) == 2
    (picture,) = pruned.summary["kept_tokens.filenames"]
    assert (pruned.folder / "files" / picture).is_file()


def test_every_kind_of_panel_is_there(spec) -> None:
    assert {kind: len(found) for kind, found in panels(spec).items()} == {
        "Scatter Plot": 4,
        "Vega2": 5,
        "Weave": 2,
        "Parallel Coordinates Plot": 1,
        "Run Comparer": 1,
        "Bar Chart": len(dashboard.TIMES),
        "Media Browser": 1,
    }


def test_every_key_of_a_panel_is_logged_by_every_run(runs, spec) -> None:
    found = panels(spec)
    axes = [*values(found["Scatter Plot"], "xAxis"), *values(found["Scatter Plot"], "yAxis")]
    axes += values(found["Parallel Coordinates Plot"], "accessor")
    axes += (name for name in values(spec, "columnPinned") for name in name)
    fields = {name for chart in values(found["Vega2"], "fieldSettings") for name in chart.values()}
    tables = {node["val"] for node in values(found["Weave"], "key")}
    tables |= {
        argument["value"]
        for field in values(found["Vega2"], "args")
        for argument in field
        if argument["name"] == "tableKey"
    }
    bars = [name for names in values(found["Bar Chart"], "metrics") for name in names]
    media = [name for names in values(found["Media Browser"], "mediaKeys") for name in names]
    assert len(axes) > 10
    assert (len(bars), media, tables) == (4, ["kept_tokens"], {"result", "predictions"})
    for run in runs:
        for axis in axes:
            kind, _, name = axis.partition(":")
            known = {"summary": run.summary, "config": run.config, "run": {"displayName": 0}}[kind]
            assert name.replace(".value.", ".") in known, axis
        assert fields <= set(run.table("result")["columns"])
        assert all(f"{table}.nrows" in run.summary for table in tables)
        assert set(bars) <= run.history.keys()
        assert f"{media[0]}.filenames" in run.summary


def test_only_evaluations_of_the_named_sets_are_shown(runs, spec) -> None:
    (shown,) = (runset["filters"] for runset in spec["spec"]["section"]["runSets"])
    told = {entry["key"]["name"]: entry["value"] for entry in shown["filters"]}
    assert told == {"jobType": ["evaluation"], "names.value.dataset": ["shapes"]}
    for run in runs:
        assert run.job_type in told["jobType"]
        assert run.config["names.dataset"] in told["names.value.dataset"]


def test_a_workspace_is_not_saved_without_a_key(monkeypatch, tmp_path, capsys) -> None:
    pytest.importorskip("wandb_workspaces")
    forget_credentials(monkeypatch, tmp_path)
    assert dashboard.main(["--project", "p"]) == 2
    assert "No API key was found; run wandb login" in capsys.readouterr().err


def test_without_its_library_one_sentence_says_what_to_do(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert dashboard.main(["--dry-run"]) == 2
    assert "needs wandb-workspaces: pip install ivcp[wandb]" in capsys.readouterr().err


def test_what_is_saved_is_the_workspace_of_the_account(monkeypatch, tmp_path, capsys) -> None:
    interface = pytest.importorskip("wandb_workspaces.workspaces.interface")
    forget_credentials(monkeypatch, tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr("wandb.Api", lambda: SimpleNamespace(default_entity="me"))
    monkeypatch.setattr(interface, "get_app_url", lambda _: "https://wandb.example.org")
    saved = []

    def accept(view):
        saved.append(view)
        return {"upsertView": {"view": {"name": "nw-abc-v", "id": "1"}}}

    monkeypatch.setattr(interface.internal, "upsert_view2", accept)
    assert dashboard.main(["--project", "p", "--name", "mine"]) == 0
    assert "https://wandb.example.org/me/p?nw=abc" in capsys.readouterr().out
    assert dashboard.main(["--project", "p", "--entity", "team"]) == 0
    assert [(view.entity, view.project, view.display_name) for view in saved] == [
        ("me", "p", "mine"), ("team", "p", "Pruning"),
    ]  # fmt: skip

    def refuse(view):
        raise RuntimeError("no\nroute")

    monkeypatch.setattr(interface.internal, "upsert_view2", refuse)
    assert dashboard.main(["--project", "p"]) == 2
    assert "The workspace could not be saved (no route)." in capsys.readouterr().err


def test_a_report_is_one_run_with_all_its_files(monkeypatch, tmp_path, capsys) -> None:
    forget_credentials(monkeypatch, tmp_path)
    report = tmp_path / "report"
    report.mkdir()
    (report / "table.csv").write_text("pruner,group,layer,value\nnone,,,0.5\nfastv,,2+4,\n")
    (report / "table.md").write_text("# table")
    (report / "report.html").write_text("<p>all of it</p>")
    picture = ROOT / "experiments" / "compare" / "pareto.png"
    (report / "pareto.png").write_bytes(picture.read_bytes())
    (report / "figures").mkdir()
    (report / "figures" / "pareto-shapes.pdf").write_bytes(b"%PDF")
    assert upload.main([str(report), "--project", "p", "--mode", "offline", "--group", "g"]) == 0
    (run,) = read_runs(report)
    assert f"offline: wandb sync {run.folder}" in capsys.readouterr().out
    assert (run.name, run.job_type, run.group) == ("report report", "report", "g")
    assert run.table("tables/table") == {
        "columns": ["pruner", "group", "layer", "value"],
        "data": [["none", None, None, 0.5], ["fastv", None, "2+4", None]],
    }
    assert run.summary["plots/pareto._type"] == "image-file"
    assert run.summary["pages/report._type"] == "html-file"
    assert run.artifacts["report"] == {
        "table.csv", "table.md", "report.html", "pareto.png", "figures/pareto-shapes.pdf",
    }  # fmt: skip


def test_a_folder_without_a_report_is_one_sentence(tmp_path, capsys) -> None:
    assert upload.main([str(tmp_path / "nothing")]) == 2
    assert "holds no table; give a folder" in capsys.readouterr().err
