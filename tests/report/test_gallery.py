"""Samples that pruning broke or fixed, and their pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ivcp.report.gallery import CASES, PAIRS, make_galleries
from ivcp.report.rows import make_rows
from ivcp.report.runs import find_runs

GRIDS = [{"grids": [{"start": 3, "rows": 2, "columns": 2}]}]


def line(index: int, score: float, **told: Any) -> dict[str, Any]:
    return {
        "index": index,
        "id": f"s{index}",
        "task": "grounding",
        "question": "the <blue> square",
        "options": [],
        "answer": [10.0, 10.0, 90.0, 30.2],
        "parsed": [0.0, 0.0, 50.0, 50.0],
        "prediction": f"box {score:g}",
        "score": score,
        "image_size": [100, 50],
        "images": GRIDS,
        "kept": [3, 6],
        "reasons": {"ivc": [3], "foreground": [6]},
        **told,
    }


@pytest.fixture
def make_pair(make_run: Any, tmp_path: Path) -> Any:
    def make(base: list[dict[str, Any]], own: list[dict[str, Any]]) -> tuple[Any, list[str]]:
        for name, pruner, lines in (("base", "none", base), ("own", "ivcp", own)):
            folder = tmp_path / name
            if not folder.exists():
                make_run(name, pruner=pruner, value=0.5)
            text = "".join(json.dumps(one) + "\n" for one in lines)
            (folder / "predictions.jsonl").write_text(text)
        return make_galleries(make_rows(find_runs([tmp_path])[0]))

    return make


def picture(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_only_what_changed_is_shown_the_first_ones_first(make_pair: Any) -> None:
    scores = [(1.0, 0.4), (0.2, 0.5), (1.0, 1.0), (0.0, 0.4), *[(0.5, 0.0)] * 6]
    base = [line(index, before) for index, (before, _) in enumerate(scores)]
    own = [line(index, after) for index, (_, after) in enumerate(scores)]
    (gallery,), problems = make_pair([*base, line(98, 1.0)], [*reversed(own), line(99, 0.0)])
    assert problems == []
    assert (gallery.regressed, gallery.fixed, gallery.both) == (7, 1, 10)
    shown = [(case.sample, case.fixed) for case in gallery.cases]
    assert CASES == 4
    assert shown == [("s0", False), *((f"s{n}", False) for n in (4, 5, 6)), ("s1", True)]
    fixed = gallery.cases[-1]
    assert (fixed.unpruned, fixed.pruned) == ("box 0.2", "box 0.5")
    assert (fixed.question, fixed.answer) == ("the <blue> square", "10, 10, 90, 30")


def test_options_and_failures_are_told(make_pair: Any) -> None:
    told = {"task": "multiple_choice", "options": ["cat", "dog"], "answer": "B", "parsed": None}
    (gallery,), _ = make_pair(
        [line(0, 1.0, **told)], [line(0, 0.0, failed="regressed image", images=[], **told)]
    )
    (case,) = gallery.cases
    assert case.question == "the <blue> square A. cat B. dog"
    assert (case.answer, case.pruned) == ("B", "failed: regressed image")
    assert case.pictures == ()


def test_a_map_shows_kept_and_dropped_cells(make_pair: Any) -> None:
    (gallery,), _ = make_pair([line(0, 1.0)], [line(0, 0.0, task="yes_no")])
    ((shot,),) = [case.pictures for case in gallery.cases]
    assert (shot.kind, shot.caption) == ("png", "token map (no photo was saved)")
    drawn = picture(shot.data)
    width, height = 480, 240  # the photo's shape, enlarged
    cells = [
        drawn.getpixel((12 + x * width // 4, 12 + y * height // 4)) for y in (1, 3) for x in (1, 3)
    ]
    assert [max(cell) > 150 for cell in cells] == [True, False, False, True]


def test_pictures_of_both_runs_stand_side_by_side(make_pair: Any, tmp_path: Path) -> None:
    make_pair([], [])
    for name, color in (("base", "red"), ("own", "blue")):
        (tmp_path / name / "pictures").mkdir()
        for number in (1, 2, 10):
            path = tmp_path / name / f"pictures/000_s0_{number}.png"
            Image.new("RGB", (1000, 10 * number), color).save(path)
    (gallery,), _ = make_pair([line(0, 1.0), line(1, 1.0)], [line(0, 0.0), line(1, 0.0)])
    shots, others = (case.pictures for case in gallery.cases)
    assert [shot.caption for shot in shots] == ["unpruned", "pruned by ivcp"] * 3
    assert {shot.kind for shot in shots} == {"jpeg"}
    sizes = [picture(shot.data).size for shot in shots[1::2]]
    assert sizes == [(720, 7), (720, 14), (720, 72)]
    reds = [picture(shot.data).getpixel((0, 0))[0] > 200 for shot in shots]
    assert reds == [True, False] * 3
    assert len(others) == 1


def test_a_torn_picture_and_a_foreign_layout_are_said(make_pair: Any, tmp_path: Path) -> None:
    make_pair([], [])
    (tmp_path / "own/pictures").mkdir()
    (tmp_path / "own/pictures/000_s0.png").write_text("torn")
    own = [
        line(0, 0.0),
        line(1, 0.0, images=[{"grids": 3}]),
        line(2, 0.0, kept=[3], reasons={"ivc": "x"}),
    ]
    (gallery,), _ = make_pair([line(n, 1.0) for n in range(3)], own)
    problems = [case.problem for case in gallery.cases]
    assert "000_s0.png cannot be read" in problems[0]
    assert problems[1] == "No picture: The layout of sample s1 cannot be read."
    assert problems[2].startswith("No picture: ")


def test_pairs_that_are_left_out_are_said(make_run: Any, tmp_path: Path) -> None:
    make_run("base", pruner="none", value=0.5)
    for number in range(PAIRS + 2):
        make_run(f"{number}", pruner="ivcp", value=number / 10)
    galleries, problems = make_galleries(make_rows(find_runs([tmp_path])[0]))
    assert galleries == []
    assert len(problems) == PAIRS + 1
    assert "predictions.jsonl is missing" in problems[0]
    assert problems[-1].startswith(f"Galleries are made of the first {PAIRS} of {PAIRS + 2} pairs")


@pytest.mark.parametrize("text", ["{", "[1]\n", '{"index": 3}\n', "\udcff"])
def test_a_foreign_file_is_said(make_pair: Any, tmp_path: Path, text: str) -> None:
    make_pair([line(0, 1.0)], [])
    (tmp_path / "own/predictions.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    _, (problem,) = make_galleries(make_rows(find_runs([tmp_path])[0]))
    assert "predictions.jsonl is torn or foreign at line" in problem
