"""Order, relations and formats of the table."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ivcp.report.runs import find_runs
from ivcp.report.table import Row, make_rows, to_csv, to_markdown, to_screen


@pytest.fixture
def rows(make_run: Any, tmp_path: Path) -> list[Row]:
    make_run("p", pruner="fastv", value=0.45, ratio=0.5, dataset="pope", headline="f1")
    make_run("a", pruner="random", value=0.3, ratio=0.1, layer=4)
    make_run("b", pruner="fa|stv", value=0.8, ratio=0.5, layer=4)
    make_run("c", pruner="[red]ivcp", value=0.6, ratio=0.5, layer=4)
    make_run("d", pruner="none", value=0.9, ratio=0.1)
    make_run("e", pruner="failed", value=float("nan"), ratio=0.1)
    return make_rows(find_runs([tmp_path])[0])


def test_order_is_dataset_then_ratio_then_headline(rows: list[Row]) -> None:
    assert [row.run.folder.name for row in rows] == ["p", "d", "b", "c", "a", "e"]


def test_relative_is_against_the_unpruned_run(rows: list[Row]) -> None:
    relative = {row.run.folder.name: row.relative for row in rows}
    assert relative["d"] == 1
    assert relative["b"] == pytest.approx(0.8 / 0.9)
    assert relative["p"] is None
    assert relative["e"] is None


def test_an_unpruned_score_of_zero_gives_no_relation(make_run: Any, tmp_path: Path) -> None:
    make_run("a", pruner="none", value=0.0)
    make_run("b", pruner="random", value=0.1)
    assert [row.relative for row in make_rows(find_runs([tmp_path])[0])] == [None, None]


def test_csv_holds_raw_numbers_and_leaves_gaps(rows: list[Row]) -> None:
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert len(read) == 6
    best = read[2]
    assert best["pruner"] == "fa|stv"
    assert float(best["value"]) == 0.8
    assert float(best["relative"]) == 0.8 / 0.9
    assert (best["ratio"], best["layer"], best["headline"]) == ("0.5", "4", "acc@0.5")
    assert float(best["prefill_ms_q3"]) == 33
    assert float(best["kv_cache_bytes"]) == 1e6
    assert read[-1]["value"] == ""
    assert read[-1]["relative"] == ""


def test_markdown_is_a_table_with_equal_columns(rows: list[Row]) -> None:
    lines = to_markdown(rows).splitlines()
    assert len(lines) == 8
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "fa\\|stv | 0.5 | 4 | acc@0.5 | 80.0 | 88.9 | 50.0 |" in lines[4]
    assert "| - | - |" in lines[-1]


def test_screen_shows_names_as_they_are(rows: list[Row]) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(to_screen(rows))
    text = console.export_text()
    assert "[red]ivcp" in text
    assert "shapes · tiny · acc@0.5" in text
    assert "pope · tiny · f1" in text
    assert "88.9" in text
