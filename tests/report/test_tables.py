"""Tables of runs and groups in every format."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ivcp.core.metric import ScoredAnswer
from ivcp.metrics.group_metrics import GroupMetrics
from ivcp.metrics.mme import MmeMetrics
from ivcp.metrics.multiple_choice import MultipleChoiceMetrics
from ivcp.report.columns import COLUMNS, Where
from ivcp.report.comparison import Entry, Interval, Paired
from ivcp.report.plots import draw_plots
from ivcp.report.tables import (
    Table,
    all_lines,
    all_numbers,
    group_caption,
    group_numbers,
    group_tables,
    run_tables,
)
from ivcp.report.writers import to_csv, to_latex, to_markdown, to_screen

NASTY = "[a]\\b&%$#_{}~^<>|\"'·-x"


def read_csv(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def printed(tables: list[Table], width: int = 140) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(to_screen(tables, width))
    return console.export_text()


def on_screen(entries: list[Entry], width: int = 140) -> str:
    return printed(run_tables(entries, Where.SCREEN), width)


@pytest.fixture
def entries(make_run: Any, read_entries: Any) -> list[Entry]:
    make_run("p", pruner="fastv", value=0.45, ratio=0.5, dataset="pope", primary_metric="f1")
    make_run("a", pruner="random", value=0.3, ratio=0.1, layers=[4])
    make_run("b", pruner="fa|stv", value=0.8, ratio=0.5, layers=[4])
    make_run("c", pruner="[red]ivcp", value=0.6, ratio=0.5, layers=[4])
    make_run("d", pruner="none", value=0.9, ratio=0.1)
    make_run("e", pruner="failed", value=None, ratio=0.1)
    return read_entries()


def test_columns_have_different_names() -> None:
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    assert all(bool(column.heading) == bool(column.where) for column in COLUMNS)


def test_csv_holds_raw_numbers_and_leaves_gaps(entries: list[Entry]) -> None:
    lines = read_csv(all_numbers(entries))
    assert len(lines) == 6
    best = lines[2]
    assert best["pruner"] == "fa|stv"
    assert float(best["value"]) == 0.8
    assert float(best["relative"]) == 0.8 / 0.9
    assert (best["ratio"], best["layer"], best["primary_metric"]) == ("0.5", "4", "acc@0.5")
    assert float(best["prefill_ms_q3"]) == 33
    assert float(best["kv_cache_bytes"]) == 1e6
    assert lines[-1]["value"] == ""
    assert lines[-1]["relative"] == ""


def test_markdown_is_a_table_with_equal_columns(entries: list[Entry]) -> None:
    lines = to_markdown(all_lines(entries)).splitlines()
    assert len(lines) == 8
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert "| of<br>unpruned % |" in lines[0]
    assert "fa\\|stv | 0.5 | 4 | acc@0.5 (%) | **80.0** | 88.9 | -10.0 | 50.0 |" in lines[4]
    assert "| - | - |" in lines[-1]


def test_columns_of_which_nothing_is_known_are_left_out(entries: list[Entry]) -> None:
    pope, shapes = run_tables(entries, Where.PAGE)
    headings = [[column.heading for column in table.columns] for table in (pope, shapes)]
    assert {"layer", "of\nunpruned %", "p"}.isdisjoint(headings[0])
    assert {"layer", "of\nunpruned %"} <= set(headings[1])
    (alone,) = run_tables(entries[-1:], Where.PAGE)
    assert "score" in [column.heading for column in alone.columns]  # a failure is no gap


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_narrow_screen_gets_the_table_in_parts(entries: list[Entry], width: int) -> None:
    text = on_screen(entries, width)
    assert "…" not in text
    assert text.count("unpruned %") == 1  # once a block that has a baseline
    assert text.count("samples") == 2
    assert (text.count("shapes · tiny") > 1) == (width < 200)
    assert max(map(len, text.splitlines())) <= width


def test_screen_shows_names_as_they_are(entries: list[Entry]) -> None:
    text = on_screen(entries)
    for name in ("[red]ivcp", "shapes · tiny · acc@0.5", "pope · tiny · f1", "88.9"):
        assert name in text


@pytest.fixture
def points(make_scored: Any, read_entries: Any) -> list[Entry]:
    def answers(rights: str) -> list[ScoredAnswer]:
        return [
            ScoredAnswer("Yes", "Yes", float(right), task_labels(number))
            for number, right in enumerate(rights)
        ]

    make_scored("a", MmeMetrics(), answers("111111"), pruner="none", dataset="mme")
    options = {"pruner": "sparsevlm", "dataset": "mme", "layers": [2, 6, 15]}
    make_scored("b", MmeMetrics(), answers("111000"), **options)
    return read_entries(paired=True)


def task_labels(number: int, **labels: str) -> dict[str, str]:
    return {"category": "OCR", "image_path": str(number // 2), **labels}


def test_points_are_shown_as_points(points: list[Entry]) -> None:
    none, pruned = read_csv(all_numbers(points))
    assert (none["value"], none["unit"], none["difference"]) == ("200.0", "points", "")
    assert float(pruned["value"]) == pytest.approx(100 * (1 / 2 + 1 / 3))
    assert float(pruned["difference"]) == pytest.approx(-100 * (1 / 2 + 2 / 3))
    shown = "-116.7 [-200.0, +0.0]"
    markdown = to_markdown(all_lines(points))
    assert f"| 83.3 | 41.7 | {shown} | 0.25 | 0 | 3 |" in markdown
    assert "mme · tiny · total (points)" in on_screen(points)
    assert shown in on_screen(points)


def test_wide_rows_fit_the_screen(points: list[Entry]) -> None:
    metric = points[0].metric
    pruned = replace(
        points[1],
        metric=metric.model_copy(update={"value": 0.0}),
        base=replace(points[0], metric=metric.model_copy(update={"value": 1734.5})),
        samples=14_232,
        paired=Paired(difference=Interval(-1734.5, -1734.5), p=0.0012),
    )
    text = on_screen([pruned])
    assert "…" not in text
    line = next(line for line in text.splitlines() if "sparsevlm" in line)
    assert "2+6+15" in line
    assert "-1734.5 [-1734.5, -1734.5]" in line
    assert line.rstrip().endswith("14232")
    assert "-1734.5 [-1734.5, -1734.5]" in on_screen([pruned], width=110)


def test_fractions_have_differences_in_percent_points(make_scored: Any, read_entries: Any) -> None:
    def answers(rights: str) -> list[ScoredAnswer]:
        return [ScoredAnswer("A", "A" if right == "1" else "B", float(right)) for right in rights]

    make_scored("a", MultipleChoiceMetrics(), answers("1" * 20), pruner="none")
    make_scored("b", MultipleChoiceMetrics(), answers("1" * 19 + "0"), pruner="ivcp")
    entries = read_entries(paired=True)
    assert "| 95.0 | 95.0 | -5.0 [-15.0, +0.0] | 1 | 0 | 1 |" in to_markdown(all_lines(entries))
    line = read_csv(all_numbers(entries))[1]
    ends = float(line["difference_low"]), float(line["difference_high"])
    assert ends == pytest.approx((-0.15, 0))  # P(more than 3 draws of 20) = 1.6 %
    assert float(line["relative_low"]) == pytest.approx(0.85)
    assert (line["mcnemar_p"], line["fixed"], line["regressed"]) == ("1.0", "0", "1")


@pytest.fixture
def latex(make_run: Any, read_entries: Any) -> str:
    make_run("a", pruner="none", value=0.9)
    make_run("b", pruner=NASTY, value=0.8, layers=[2, 6])
    make_run("c", pruner="fastv", value=0.4, ratio=0.1)
    make_run("d", pruner="f\n\n&", value=0.4, dataset="x_1")
    make_run("e", pruner="é 猫 \x1b[31m→ 🎯 " + "a" * 5000, value=0.4, dataset="x_1")
    return to_latex(run_tables(read_entries(), Where.PAPER))


def test_every_block_is_a_latex_table_of_equal_rows(latex: str) -> None:
    blocks = re.findall(r"\\begin\{tabular\}\{(.*?)\}\n(.*?)\\end\{tabular\}", latex, re.DOTALL)
    assert len(blocks) == 2
    for kinds, body in blocks:
        rows = [row for row in body.split("\n") if row.endswith(" \\\\")]
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(kinds)}
        assert body.startswith("\\toprule")
        assert body.rstrip().endswith("\\bottomrule")
    assert [body.count("\\midrule") for _, body in blocks] == [3, 1]  # below the head, at ratios
    assert (
        "\\caption{x\\_1, tiny, acc@0.5 (\\%). Best of a budget in bold, second underlined.}"
        in latex
    )
    assert "\n{[}a{]}\\textbackslash{}b\\&" in latex
    assert "f \\& & 0.5 & \\textbf{40.0}" in latex
    assert "fastv & 0.1 & -- & 40.0 & 44.4 & $-$50.0 &" in latex
    assert "\n\\'{e} ? $\\to$ ? aaa" in latex
    assert latex.isascii()


@pytest.mark.parametrize("engine", ["pdflatex", "xelatex"])
def test_it_compiles(latex: str, tmp_path: Path, engine: str) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed")
    (tmp_path / "table.tex").write_text(latex, encoding="utf-8")
    head = "\\documentclass{article}\\usepackage{booktabs,graphicx}"
    (tmp_path / "all.tex").write_text(f"{head}\\begin{{document}}\\input{{table}}\\end{{document}}")
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.fixture
def groups(make_scored: Any, make_run: Any, read_entries: Any) -> list[Entry]:
    """Runs of a group of MME and two more tasks, and a run of one dataset beside it."""
    names = ("z_first", "a_second")
    metrics = {"mme": MmeMetrics(), **dict.fromkeys(names, MultipleChoiceMetrics())}
    group = GroupMetrics({name: {"metric": metric} for name, metric in metrics.items()})
    for pruner, ratio, rights in (
        ("none", 1, (20, 20, 16)), ("fastv", 0.5, (10, 19, 8)), ("ivcp", 0.5, (20, 20, 17)),
    ):  # fmt: skip
        answers = [
            ScoredAnswer("A", "A", float(number < right), task_labels(number, task=name))
            for name, right in zip(metrics, rights, strict=True)
            for number in range(20)
        ]
        make_scored(
            pruner, group, answers, pruner=pruner, dataset="general", ratio=ratio, layers=[2]
        )
    make_run("single", pruner="none", value=0.5, dataset="single")
    return read_entries(paired=True)


def test_a_group_has_a_row_a_method_and_a_column_a_task(groups: list[Entry]) -> None:
    (table,) = group_tables(groups)
    lines = to_markdown(table).splitlines()
    assert lines[0] == "## general · tiny · by task"
    assert lines[2] == (
        "| method | ratio | layer | mme<br>total (points) | z_first<br>accuracy "
        "| a_second<br>accuracy | average<br>average | mean of<br>unpruned % |"
    )
    assert lines[4] == "| Unpruned | 1 | - | 200.0 | 100.0 | 80.0 | 62.4 | 100.0 |"
    assert lines[5].startswith(
        "| IVC-Prune | 0.5 | 2 | **200.0 (100.0)** | **100.0 (100.0)** | **85.0 (106.2)** |"
    )
    assert lines[6].startswith(
        "| fastv | 0.5 | 2 | 100.0 (50.0)\\* | 95.0 (95.0) | 40.0 (50.0)\\* |"
    )
    assert [line.cells[-1] for line in table.lines] == ["100.0", "102.1", "65.0"]
    assert "(percent of the unpruned score); *: the 95 % interval" in group_caption(groups)


def test_the_csv_of_groups_holds_raw_numbers(groups: list[Entry]) -> None:
    none, _, fastv = read_csv(group_numbers(groups))
    assert [fastv[key] for key in ("model", "group", "pruner", "ratio", "layer")] == [
        "tiny", "general", "fastv", "0.5", "2",
    ]  # fmt: skip
    assert [float(fastv[f"mme{kind}"]) for kind in ("", "_relative")] == [100, 0.5]
    assert fastv["mme_significant"] == "True"
    assert fastv["z_first_significant"] == "False"
    assert none["mme_significant"] == ""
    assert float(fastv["average"]) == pytest.approx((100 / 2800 + 0.95 + 0.4) / 3)


@pytest.mark.parametrize("width", [60, 90, 140])
def test_the_screen_is_never_too_narrow_for_a_group(groups: list[Entry], width: int) -> None:
    text = printed(group_tables(groups), width)
    assert "…" not in text
    parts = text.count("general · tiny")
    assert (parts > 1) == (width < 100)
    assert text.count("fastv") == parts
    for shown in ("100.0 (50.0)*", "95.0 (95.0) ", "85.0 (106.2)", "total (points)", "z_first"):
        assert text.count(shown) == 1


def test_several_datasets_have_the_mean_of_their_percentages(
    make_run: Any, read_entries: Any
) -> None:
    for dataset, unpruned, values in (("x", 0.8, (0.4, 0.6)), ("y", 0.5, (0.5, 0.25))):
        make_run(f"{dataset}0", pruner="none", dataset=dataset, value=unpruned, ratio=1.0)
        for value, count in zip(values, ("final", "layer_average"), strict=True):
            budget = {"count": count, "tokens": 60, "obtained": 60.25}
            make_run(
                f"{dataset}{count}", pruner="fastv", dataset=dataset, value=value, ratio=0.3,
                budget=budget,
            )  # fmt: skip
    make_run("alone", pruner="random", dataset="x", value=0.2)
    entries = read_entries()
    (table,) = group_tables(entries)
    assert table.title == "all datasets · tiny · by task"
    means = {(line.cells[0], line.cells[1]): line.cells[-1] for line in table.lines}
    assert means == {
        ("Unpruned", "-"): "100.0",
        ("fastv", "-"): "75.0",
        ("fastv", "budget.count=layer_average"): "62.5",
        ("Random", "-"): "-",
    }
    asked = [line.cells[3] for line in table.lines]
    assert {cell for cell in asked if cell != "-"} == {"60 tokens", "60 tokens, layer average"}
    make_run("rerun", pruner="fastv", dataset="x", value=0.2, ratio=0.3, date="2026-02-01",
             budget={"count": "final", "tokens": 60, "obtained": 60.25})  # fmt: skip
    make_run("other", pruner="fastv", dataset="x", value=0.9, ratio=0.3,
             config={"pruner": {"renumber": True}}, budget=budget)  # fmt: skip
    (table,) = group_tables(read_entries())
    means = {line.cells[-1] for line in table.lines if line.cells[0] == "fastv"}
    assert means == {"62.5", "-"}, "the latest of repeats; other settings are another method"
    budget = {"count": "final", "over": "frame", "ratio": 0.3, "obtained": 0.3}
    make_run("frames", pruner="fastv", dataset="x", value=0.3, ratio=0.3, budget=budget)
    (frames,) = [entry for entry in read_entries() if entry.run.folder.name == "frames"]
    assert frames.budget == "30 %, per frame: 30.0 %"
    assert "budget_over=frame" in frames.variant.text
    shown = {entry.budget for entry in entries}
    assert shown == {None, "60 tokens: 60.2", "60 tokens, layer average: 60.2"}


def test_papers_get_methods_x_datasets_of_runs_on_each_of_them(
    make_run: Any, read_entries: Any
) -> None:
    for dataset, unpruned, scores in (("x", 0.8, (0.4, 0.6, 0.6)), ("y", 0.5, (0.5, 0.25, 0.1))):
        make_run(f"{dataset}0", pruner="none", dataset=dataset, value=unpruned, ratio=1.0)
        for pruner, value in zip(("fastv", "ivcp", "random"), scores, strict=True):
            make_run(f"{dataset}{pruner}", pruner=pruner, dataset=dataset, value=value)
    text = to_latex(group_tables(read_entries(), paper=True))
    assert "\\caption{all datasets, tiny, by task. Best of a budget in bold" in text
    rows = [line for line in text.splitlines() if line.endswith("\\\\") and "&" in line][1:]
    assert set(rows) == {
        r"Unpruned & 1 & 80.0 & 50.0 & 65.0 & 100.0 \\",
        r"fastv & 0.5 & \underline{40.0} & \textbf{50.0} & \textbf{45.0} & \textbf{75.0} \\",
        r"IVC-Prune & 0.5 & \textbf{60.0} & \underline{25.0} & \underline{42.5} "
        r"& \underline{62.5} \\",
        r"Random & 0.5 & \textbf{60.0} & 10.0 & 35.0 & 47.5 \\",
    }


def test_the_best_is_that_of_a_budget_as_it_is_shown(make_run: Any, read_entries: Any) -> None:
    make_run("none", pruner="none", value=0.99)
    values = {0.5: (0.8001, 0.8002, 0.7, 0.6), 0.1: (0.3,)}
    for keep_ratio, scores in values.items():
        for number, value in enumerate(scores):
            make_run(f"{keep_ratio}{number}", pruner=f"p{number}", value=value, ratio=keep_ratio)
    (table,) = run_tables(read_entries(), Where.PAPER)
    score = [column.name for column in table.columns].index("value")
    ranks = [(line.cells[score], line.ranks[score]) for line in table.lines]
    assert ranks == [
        ("99.0", 0), ("80.0", 1), ("80.0", 1), ("70.0", 2), ("60.0", 0), ("30.0", 0)
    ]  # fmt: skip


def test_budgets_in_tokens_are_told_apart_by_what_was_asked_for(
    make_run: Any, read_entries: Any
) -> None:
    for tokens in (64, 192):
        for number, ratio in enumerate((0.33, 0.30)):
            budget = {"tokens": tokens, "obtained": 60.0 + number}
            name = f"{tokens}-{number}"
            make_run(name, pruner=f"p{number}", value=0.5, ratio=ratio, budget=budget)
    entries = read_entries()
    assert [entry.target for entry in entries] == ["192 tokens"] * 2 + ["64 tokens"] * 2
    (table,) = run_tables(entries, Where.PAPER)
    assert [line.ruled for line in table.lines] == [False, False, True, False]


def test_intervals_can_stay_away_from_papers(points: list[Entry]) -> None:
    (with_them,) = run_tables(points, Where.PAPER)
    (without,) = run_tables(points, Where.PAPER, intervals=False)
    assert "-116.7 [-200.0, +0.0]" in with_them.lines[1].cells
    assert "-116.7" in without.lines[1].cells


def test_many_tables_leave_latex_room(make_run: Any, read_entries: Any) -> None:
    for number in range(30):
        make_run(f"{number}", pruner="none", value=0.5, dataset=f"d{number}")
    text = to_latex(run_tables(read_entries(), Where.PAPER))
    assert [part.count("\\begin{table*}") for part in text.split("\\clearpage")] == [12, 12, 6]


def test_every_line_has_its_command(make_run: Any, read_entries: Any) -> None:
    make_run("a", pruner="ivcp", value=0.5, overrides=["pruner=ivcp", "data.root=/my data;rm"])
    make_run("b", pruner="ivcp", value=0.4, ratio=0.3, config={"seed": 3, "ratio": 0.3})
    commands = [line["command"] for line in read_csv(all_numbers(read_entries()))]
    assert commands == [
        "ivcp run pruner=ivcp 'data.root=/my data;rm'",
        "ivcp run model=tiny pruner=ivcp dataset=shapes ratio=0.3 seed=3",
    ]


def test_tasks_that_a_run_lacks_are_gaps(make_run: Any, read_entries: Any) -> None:
    for name, tasks in (("a", "xy"), ("b", "yz")):
        make_run(
            name,
            pruner=name,
            value=0.5,
            tasks={task: {"name": "f1"} for task in tasks},
            values={f"{task}/f1": 0.5 for task in tasks},
        )
    entries = read_entries()
    (table,) = group_tables(entries)
    assert [column.name for column in table.columns[2:]] == ["x", "y", "z", "average"]
    assert [line.cells[2:] for line in table.lines] == [
        ("50.0", "50.0", "-", "50.0"),
        ("-", "50.0", "50.0", "50.0"),
    ]
    assert [line["x"] for line in read_csv(group_numbers(entries))] == ["0.5", ""]


def test_there_is_no_table_without_a_group(make_run: Any, read_entries: Any) -> None:
    make_run("a", pruner="none", value=0.5)
    assert group_tables(read_entries()) == []


def test_tasks_are_lines_of_the_csv_but_not_of_screen_and_plot(groups: list[Entry]) -> None:
    lines = read_csv(all_numbers(groups))
    names = [(line["group"], line["dataset"], line["pruner"]) for line in lines]
    assert names[:3] == [("", "general", name) for name in ("none", "ivcp", "fastv")]
    assert names[3:6] == [("general", "a_second", name) for name in ("none", "ivcp", "fastv")]
    assert len(names) == 3 * 4 + 1
    task = lines[3]
    assert (task["keep_ratio"], task["prefill_ms"], task["samples"]) == ("", "", "")
    assert lines[4]["fixed"] == "1"
    assert "a_second" not in on_screen(groups)
    captions = [plot.caption.partition(":")[0] for plot in draw_plots(groups)[0]]
    assert captions == ["general", "single"]
