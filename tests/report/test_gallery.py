"""Samples that pruning regressed or fixed, and their images."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ivcp.report.gallery import CASES, PAIRS, make_galleries

GRID = {"start": 3, "rows": 2, "columns": 2}
HUGE = {**GRID, "rows": 10**6, "columns": 10**6}


def line(index: int, score: float, **changes: Any) -> dict[str, Any]:
    return {
        "index": index,
        "id": f"s{index}",
        "task": "grounding",
        "question": "the <blue> square",
        "answer": [10.0, 10.0, 90.0, 30.2],
        "parsed": [0.0, 0.0, 50.0, 50.0],
        "prediction": f"box {score:g}",
        "score": score,
        "image_size": [100, 50],
        "visual_tokens": 4,
        "images": [{"grids": [GRID]}],
        "kept": [3, 6],
        "reasons": {"ivc": [3], "foreground": [6]},
        **changes,
    }


@pytest.fixture
def make_pair(make_run: Any, read_entries: Any, tmp_path: Path) -> Any:
    def make(base: list[dict[str, Any]], pruned: list[dict[str, Any]]) -> tuple[Any, list[str]]:
        for name, pruner, lines in (("base", "none", base), ("pruned", "ivcp", pruned)):
            if not (tmp_path / name).exists():
                make_run(name, pruner=pruner, value=0.5)
            text = "".join(json.dumps(one) + "\n" for one in lines)
            (tmp_path / name / "predictions.jsonl").write_text(text)
        return make_galleries(read_entries())

    return make


def image_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def test_a_span_of_time_is_shown_in_seconds(make_pair: Any) -> None:
    changes = {"task": "temporal_grounding", "answer": [24.3, 30.45], "parsed": [1.0, 2.0]}
    (gallery,), _ = make_pair([line(0, 1.0, **changes)], [line(0, 0.0, **changes)])
    assert gallery.cases[0].answer == "24.3 s - 30.4 s"


def png_header(width: int, height: int) -> bytes:
    """A PNG file that promises so many pixels and holds none."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT"


def test_only_what_changed_is_shown_in_their_order(make_pair: Any) -> None:
    scores = [(1.0, 0.4), (0.2, 0.5), (1.0, 1.0), (0.0, 0.4), *[(0.5, 0.0)] * 6]
    base = [line(index, before) for index, (before, _) in enumerate(scores)]
    pruned = [line(index, after) for index, (_, after) in enumerate(scores)]
    (gallery,), problems = make_pair([*base, line(98, 1.0)], [*reversed(pruned), line(99, 0.0)])
    assert problems == []
    assert (gallery.regressed, gallery.fixed, gallery.both) == (7, 1, 10)
    shown = [(case.sample, case.fixed) for case in gallery.cases]
    assert CASES == 4
    assert shown == [("s0", False), *((f"s{n}", False) for n in (4, 5, 6)), ("s1", True)]
    fixed = gallery.cases[-1]
    assert (fixed.unpruned, fixed.pruned) == ("box 0.2", "box 0.5")
    assert (fixed.question, fixed.answer) == ("the <blue> square", "10, 10, 90, 30")


def test_options_and_failures_are_reported(make_pair: Any) -> None:
    changes = {
        "task": "multiple_choice", "options": ["cat", "dog"], "answer": "B", "parsed": None,
    }  # fmt: skip
    failed = {"failed": "broken image", "images": [], "visual_tokens": 0}
    (gallery,), _ = make_pair([line(0, 1.0, **changes)], [line(0, 0.0, **changes, **failed)])
    (case,) = gallery.cases
    assert case.question == "the <blue> square A. cat B. dog"
    assert (case.answer, case.pruned) == ("B", "failed: broken image")
    assert case.images == ()


def test_a_map_shows_kept_and_dropped_cells(make_pair: Any) -> None:
    (gallery,), _ = make_pair([line(0, 1.0)], [line(0, 0.0, task="yes_no")])
    ((shot,),) = [case.images for case in gallery.cases]
    assert (shot.kind, shot.caption) == ("png", "token map (no photo was saved)")
    drawn = image_of(shot.data)
    width, height = 480, 240  # the photo's shape, enlarged
    cells = [
        drawn.getpixel((12 + x * width // 4, 12 + y * height // 4)) for y in (1, 3) for x in (1, 3)
    ]
    assert [max(cell) > 150 for cell in cells] == [True, False, False, True]


def test_overlays_of_both_runs_stand_side_by_side(make_pair: Any, tmp_path: Path) -> None:
    make_pair([], [])
    for name, color in (("base", "red"), ("pruned", "blue")):
        (tmp_path / name / "pictures").mkdir()
        for number in (1, 2, 10):
            path = tmp_path / name / f"pictures/000_s0_{number}.png"
            Image.new("RGB", (1000, 10 * number), color).save(path)
    (gallery,), _ = make_pair([line(0, 1.0), line(1, 1.0)], [line(0, 0.0), line(1, 0.0)])
    shots, others = (case.images for case in gallery.cases)
    assert [shot.caption for shot in shots] == ["unpruned", "pruned by ivcp"] * 3
    assert {shot.kind for shot in shots} == {"jpeg"}
    sizes = [image_of(shot.data).size for shot in shots[1::2]]
    assert sizes == [(720, 7), (720, 14), (720, 72)]
    reds = [image_of(shot.data).getpixel((0, 0))[0] > 200 for shot in shots]
    assert reds == [True, False] * 3
    assert len(others) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"torn", "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "cannot be read"),
        (png_header(9_000, 9_000), "has more than 50,000,000 pixels"),
        (png_header(50_000, 50_000), "cannot be read"),
        (png_header(10, 10), "cannot be read"),
        (None, "is no file"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_overlays_that_are_none_are_reported(
    make_pair: Any, tmp_path: Path, data: bytes | None, reason: str
) -> None:
    make_pair([], [])
    (tmp_path / "pruned/pictures").mkdir()
    path = tmp_path / "pruned/pictures/000_s0.png"
    if data is None:
        os.mkfifo(path)
    else:
        path.write_bytes(data)
    (gallery,), _ = make_pair([line(0, 1.0)], [line(0, 0.0)])
    assert f"000_s0.png {reason}" in gallery.cases[0].problem


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"visual_tokens": 10**12, "images": [{"grids": [HUGE]}]}, "is too large to draw"),
        ({"visual_tokens": 400, "images": [{"grids": [GRID] * 100}]}, "is too large to draw"),
        ({"images": [{"grids": []}], "visual_tokens": 0}, "makes no sense"),
        ({"images": [{"grids": [{**GRID, "rows": -2, "columns": -2}]}]}, "makes no sense"),
        ({"images": [{"grids": [{**GRID, "start": 2**70}]}]}, "makes no sense"),
        ({"images": [{"grids": [{**GRID, "area": [0, 0, 1e308, 1e308]}]}]}, "makes no sense"),
        ({"images": [{"grids": [{**GRID, "area": [0, 0, float("nan"), 1]}]}]}, "makes no sense"),
        ({"images": [{"grids": [{**GRID, "area": [0, 0, 0, 0]}]}]}, "makes no sense"),
        ({"image_size": [-1, 5]}, "cannot be of -1 x 5 pixels"),
        ({"kept": [3, 99], "reasons": {"ivc": [98]}}, ""),
        ({"image_size": [10**9, 10**9]}, ""),
        ({"image_size": [10**9, 1]}, ""),
        ({"images": [{"grids": [{**GRID, "area": [-99, -99, 99, 99]}]}]}, ""),
        ({"parsed": [-1e308, -1e308, 1e308, 1e308]}, ""),
        ({"parsed": [float("nan")] * 4}, ""),
        ({"parsed": ["a"] * 4, "answer": ["b"] * 4}, ""),
        ({"reasons": {"x" * 10**6: [3]}}, ""),
    ],
)  # fmt: skip
def test_odd_layouts_and_boxes_cost_no_more_than_their_image(
    make_pair: Any, change: dict[str, Any], problem: str
) -> None:
    (gallery,), _ = make_pair([line(0, 1.0)], [line(0, 0.0, **change)])
    (case,) = gallery.cases
    assert bool(case.images) == (not problem)
    assert problem in case.problem
    for shot in case.images:
        assert max(image_of(shot.data).size) <= 1440


def test_pairs_that_are_left_out_are_said(make_run: Any, read_entries: Any) -> None:
    make_run("base", pruner="none", value=0.5)
    for number in range(PAIRS + 2):
        make_run(f"{number}", pruner="ivcp", value=number / 10)
    galleries, problems = make_galleries(read_entries())
    assert galleries == []
    assert len(problems) == PAIRS + 1
    assert "predictions.jsonl is missing" in problems[0]
    assert problems[-1].startswith(f"Galleries are made of the first {PAIRS} of {PAIRS + 2} pairs")


@pytest.mark.parametrize("text", ["{", "[1]\n", '{"index": 3}\n', "\udcff\n", "[" * 10**5 + "\n"])
def test_a_foreign_file_is_said(
    make_pair: Any, read_entries: Any, tmp_path: Path, text: str
) -> None:
    make_pair([line(0, 1.0)], [])
    (tmp_path / "pruned/predictions.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    _, (problem,) = make_galleries(read_entries())
    assert "predictions.jsonl is damaged at line 1." in problem


def test_a_long_video_is_a_strip_of_eight_moments(make_pair: Any) -> None:
    grids = [{"start": 3 + 4 * n, "rows": 2, "columns": 2, "kind": "frame"} for n in range(384)]
    changes = {
        "image_size": None, "images": [{"grids": grids}], "visual_tokens": 4 * 384,
        "task": "yes_no", "answer": "Yes", "parsed": None,
    }  # fmt: skip
    (gallery,), _ = make_pair([line(0, 1.0, **changes)], [line(0, 0.0, **changes)])
    (case,) = gallery.cases
    (shot,) = case.images
    assert shot.caption == "token map (no photo was saved), 8 of 384 moments"
    drawn = image_of(shot.data)
    assert drawn.width <= 720
    assert len(shot.data) < 100_000
