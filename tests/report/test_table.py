"""Order, relations and formats of the table."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ivcp.core.metric import ScoredAnswer
from ivcp.metrics.mme import MmeMetrics
from ivcp.metrics.multiple_choice import MultipleChoiceMetrics
from ivcp.report.comparison import Interval, Paired
from ivcp.report.paired import pair_runs
from ivcp.report.rows import Row, make_rows
from ivcp.report.runs import find_runs
from ivcp.report.table import to_csv, to_markdown, to_screen


@pytest.fixture
def rows(make_run: Any, tmp_path: Path) -> list[Row]:
    make_run("p", pruner="fastv", value=0.45, ratio=0.5, dataset="pope", primary_metric="f1")
    make_run("a", pruner="random", value=0.3, ratio=0.1, layer=4)
    make_run("b", pruner="fa|stv", value=0.8, ratio=0.5, layer=4)
    make_run("c", pruner="[red]ivcp", value=0.6, ratio=0.5, layer=4)
    make_run("d", pruner="none", value=0.9, ratio=0.1)
    make_run("e", pruner="failed", value=float("nan"), ratio=0.1)
    return make_rows(find_runs([tmp_path])[0])


def test_order_is_dataset_then_ratio_then_score(rows: list[Row]) -> None:
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
    assert (best["ratio"], best["layer"], best["primary_metric"]) == ("0.5", "4", "acc@0.5")
    assert float(best["prefill_ms_q3"]) == 33
    assert float(best["kv_cache_bytes"]) == 1e6
    assert read[-1]["value"] == ""
    assert read[-1]["relative"] == ""


def test_markdown_is_a_table_with_equal_columns(rows: list[Row]) -> None:
    lines = to_markdown(rows).splitlines()
    assert len(lines) == 8
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "fa\\|stv | 0.5 | 4 | acc@0.5 (%) | 80.0 | 88.9 | -10.0 | - |" in lines[4]
    assert "| - | - |" in lines[-1]


def printed(rows: list[Row], width: int = 140) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(to_screen(rows, width))
    return console.export_text()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_narrow_screen_gets_the_table_in_parts(rows: list[Row], width: int) -> None:
    text = printed(rows, width)
    assert "…" not in text
    assert text.count("unpruned %") == text.count("samples") == 2  # once a block
    assert (text.count("shapes · tiny") > 1) == (width < 200)
    assert max(map(len, text.splitlines())) <= width


def test_screen_shows_names_as_they_are(rows: list[Row]) -> None:
    text = printed(rows)
    assert "[red]ivcp" in text
    assert "shapes · tiny · acc@0.5" in text
    assert "pope · tiny · f1" in text
    assert "88.9" in text


@pytest.fixture
def points(make_judged: Any, tmp_path: Path) -> list[Row]:
    def answers(rights: str) -> list[ScoredAnswer]:
        return [
            ScoredAnswer(
                "Yes", "Yes", float(right), {"category": "OCR", "image_path": str(number // 2)}
            )
            for number, right in enumerate(rights)
        ]

    make_judged("a", MmeMetrics(), answers("111111"), pruner="none", dataset="mme")
    make_judged("b", MmeMetrics(), answers("111000"), pruner="sparsevlm", dataset="mme")
    runs, _ = find_runs([tmp_path])
    return make_rows(runs, pair_runs(runs)[0])


def test_points_are_shown_as_points(points: list[Row]) -> None:
    none, pruned = csv.DictReader(io.StringIO(to_csv(points)))
    assert (none["value"], none["unit"], none["difference"]) == ("200.0", "points", "")
    assert float(pruned["value"]) == pytest.approx(100 * (1 / 2 + 1 / 3))
    assert float(pruned["difference"]) == pytest.approx(-100 * (1 / 2 + 2 / 3))
    shown = "-116.7 [-200.0, +0.0]"
    assert f"| total (points) | 83.3 | 41.7 | {shown} | 0.25 | 0 | 3 |" in to_markdown(points)
    assert "mme · tiny · total (points)" in printed(points)
    assert shown in printed(points)


def test_wide_rows_fit_the_screen(points: list[Row]) -> None:
    run = replace(points[1].run, layer="2+6+15", value=0.0, samples=14_232)
    base = replace(points[0].run, value=1734.5)
    wide = Row(run, base, Paired(difference=Interval(-1734.5, -1734.5), p=0.0012))
    text = printed([wide])
    assert "…" not in text
    line = next(line for line in text.splitlines() if "sparsevlm" in line)
    assert "-1734.5 [-1734.5, -1734.5]" in line
    assert line.rstrip().endswith("14232")
    assert "-1734.5 [-1734.5, -1734.5]" in printed([wide], width=110)


def test_fractions_have_differences_in_percent_points(make_judged: Any, tmp_path: Path) -> None:
    def answers(rights: str) -> list[ScoredAnswer]:
        return [ScoredAnswer("A", "A" if right == "1" else "B", float(right)) for right in rights]

    make_judged("a", MultipleChoiceMetrics(), answers("1" * 20), pruner="none")
    make_judged("b", MultipleChoiceMetrics(), answers("1" * 19 + "0"), pruner="ivcp")
    runs, _ = find_runs([tmp_path])
    rows = make_rows(runs, pair_runs(runs)[0])
    assert "| 95.0 | 95.0 | -5.0 [-15.0, +0.0] | 1 | 0 | 1 |" in to_markdown(rows)
    told = list(csv.DictReader(io.StringIO(to_csv(rows))))[1]
    ends = float(told["difference_low"]), float(told["difference_high"])
    assert ends == pytest.approx((-0.15, 0))  # P(more than 3 draws of 20) = 1.6 %
    assert float(told["relative_low"]) == pytest.approx(0.85)
    assert (told["mcnemar_p"], told["fixed"], told["regressed"]) == ("1.0", "0", "1")
