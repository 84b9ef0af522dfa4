"""The table of a group: a row a method, a column a set, marks."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ivcp.core.metric import ScoredAnswer
from ivcp.metrics.group_metrics import GroupMetrics
from ivcp.metrics.mme import MmeMetrics
from ivcp.metrics.multiple_choice import MultipleChoiceMetrics
from ivcp.report.group_table import GroupTable, group_tables, to_csv, to_markdown, to_screen
from ivcp.report.paired import pair_runs
from ivcp.report.plots import draw_plots
from ivcp.report.rows import Row, make_rows
from ivcp.report.runs import find_runs
from ivcp.report.table import to_csv as whole_csv
from ivcp.report.table import to_screen as whole_screen


def answers(task: str, right: int, count: int = 20) -> list[ScoredAnswer]:
    return [
        ScoredAnswer("A", "A", float(number < right), labels(task, number))
        for number in range(count)
    ]


def labels(task: str, number: int) -> dict[str, str]:
    return {"task": task, "category": "OCR", "image_path": str(number // 2)}


@pytest.fixture
def rows(make_judged: Any, make_run: Any, tmp_path: Path) -> list[Row]:
    """A group of MME and two more sets, and a run of one set beside it."""
    names = ("z_first", "a_second")
    metrics = {"mme": MmeMetrics(), **dict.fromkeys(names, MultipleChoiceMetrics())}
    group = GroupMetrics({name: {"metric": metric} for name, metric in metrics.items()})
    for pruner, ratio, rights in (
        ("none", 1, (20, 20, 16)), ("fastv", 0.5, (10, 19, 8)), ("ivcp", 0.5, (20, 20, 17)),
    ):  # fmt: skip
        told = [
            one for name, right in zip(metrics, rights, strict=True) for one in answers(name, right)
        ]
        make_judged(pruner, group, told, pruner=pruner, dataset="general", ratio=ratio, layer=2)
    make_run("single", pruner="none", value=0.5, dataset="single")
    runs, _ = find_runs([tmp_path])
    return make_rows(runs, pair_runs(runs)[0])


@pytest.fixture
def tables(rows: list[Row]) -> list[GroupTable]:
    return group_tables(rows)


def test_markdown_has_a_row_a_method_and_a_column_a_set(tables: list[GroupTable]) -> None:
    lines = to_markdown(tables).splitlines()
    assert lines[0] == "## general · tiny"
    assert lines[2] == (
        "| pruner | ratio | layer | mme<br>total (points) | z_first<br>accuracy "
        "| a_second<br>accuracy | average<br>average |"
    )
    assert lines[4] == "| none | 1 | - | 200.0 | 100.0 | 80.0 | 62.4 |"
    assert lines[5].startswith("| ivcp | 0.5 | 2 | 200.0 (100.0) | 100.0 (100.0) | 85.0 (106.2) |")
    assert lines[6].startswith(
        "| fastv | 0.5 | 2 | 100.0 (50.0)\\* | 95.0 (95.0) | 40.0 (50.0)\\* |"
    )
    assert "(percent of the unpruned score); \\*: the 95 % interval" in lines[-1]


def test_csv_holds_raw_numbers(tables: list[GroupTable]) -> None:
    none, _, fastv = csv.DictReader(io.StringIO(to_csv(tables)))
    assert [fastv[key] for key in ("model", "group", "pruner", "ratio", "layer")] == [
        "tiny", "general", "fastv", "0.5", "2",
    ]  # fmt: skip
    assert [float(fastv[f"mme{kind}"]) for kind in ("", "_relative")] == [100, 0.5]
    assert fastv["mme_significant"] == "True"
    assert fastv["z_first_significant"] == "False"
    assert none["mme_significant"] == ""
    assert float(fastv["average"]) == pytest.approx((100 / 2800 + 0.95 + 0.4) / 3)


@pytest.mark.parametrize("width", [60, 90, 140])
def test_the_screen_is_never_too_narrow(tables: list[GroupTable], width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(to_screen(tables, width))
    text = console.export_text()
    assert "…" not in text
    parts = text.count("general · tiny")
    assert (parts > 1) == (width < 90)
    assert text.count("fastv") == parts
    for shown in ("100.0 (50.0)*", "95.0 (95.0) ", "85.0 (106.2)", "total (points)", "z_first"):
        assert text.count(shown) == 1


def test_sets_that_a_run_lacks_are_gaps(make_run: Any, tmp_path: Path) -> None:
    for name, sets in (("a", "xy"), ("b", "yz")):
        tasks = {one: {"primary_metric": "f1", "unit": "%"} for one in sets}
        values = {f"{one}/f1": 0.5 for one in sets}
        make_run(name, pruner=name, value=0.5, tasks=tasks, values=values)
    (table,) = group_tables(make_rows(find_runs([tmp_path])[0]))
    assert [name for name, _ in table.columns] == ["x", "y", "z", "average"]
    assert "| 50.0 | 50.0 | - | 50.0 |" in to_markdown([table])
    assert "| - | 50.0 | 50.0 | 50.0 |" in to_markdown([table])


def test_there_is_no_table_without_a_suite(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="none", value=0.5)
    assert group_tables(make_rows(find_runs([tmp_path])[0])) == []


def test_members_are_rows_of_the_whole_table_but_not_of_screen_and_plot(rows: list[Row]) -> None:
    told = list(csv.DictReader(io.StringIO(whole_csv(rows))))
    names = [(row["group"], row["dataset"], row["pruner"]) for row in told]
    assert names[:3] == [("", "general", one) for one in ("none", "ivcp", "fastv")]
    assert names[3:6] == [("general", "a_second", one) for one in ("none", "ivcp", "fastv")]
    assert len(names) == 3 * 4 + 1
    task = told[3]
    assert (task["keep_ratio"], task["prefill_ms"], task["samples"]) == ("", "", "")
    assert told[4]["fixed"] == "1"
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(whole_screen(rows, 140))
    assert "a_second" not in console.export_text()
    captions = [plot.caption.partition(":")[0] for plot in draw_plots(rows).plots]
    assert captions == ["general", "single"]
