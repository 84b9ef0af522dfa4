"""Samples of the page: which are chosen, what is kept of them, and their images."""

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

from ivcp.datasets.shapes import Shapes
from ivcp.report.gallery import choose_samples, make_galleries
from ivcp.report.photos import make_dataset

GRID = {"start": 3, "rows": 2, "columns": 2}
HUGE = {**GRID, "rows": 10**6, "columns": 10**6}
SHAPES = {"_target_": "ivcp.datasets.shapes.Shapes", "task": "grounding", "size": 3}


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
        "kept_tokens": 2,
        "images": [{"grids": [GRID]}],
        "kept": [3, 6],
        "reasons": {"ivc": [3], "foreground": [6]},
        **changes,
    }


@pytest.fixture
def make_pair(make_run: Any, read_entries: Any, tmp_path: Path) -> Any:
    def make(
        base: list[dict[str, Any]], pruned: list[dict[str, Any]], most: int = 40, **run: Any
    ) -> tuple[Any, list[bytes], list[str]]:
        for name, pruner, lines in (("base", "none", base), ("pruned", "ivcp", pruned)):
            if not (tmp_path / name).exists():
                make_run(name, pruner=pruner, value=0.5, **run)
            text = "".join(json.dumps(each) + "\n" for each in lines)
            (tmp_path / name / "predictions.jsonl").write_text(text)
        return make_galleries(read_entries(), most)

    return make


def png_header(width: int, height: int) -> bytes:
    """A PNG file that promises so many pixels and holds none."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT"


def test_runs_take_turns_to_choose_what_they_changed() -> None:
    right = {f"s{index}": (index, 1.0) for index in range(9)}
    first = {**right, "s5": (5, 0.4), "s6": (6, 0.0), "s7": (7, 0.0)}
    second = {**right, "s8": (8, 0.0), "s1": (1, 0.5)}
    scores = {0: {**right, "s1": (1, 0.49)}, 1: first, 2: second}
    assert choose_samples(scores, {1: 0, 2: 0}, 4) == ["s1", "s5", "s6", "s8"]
    assert choose_samples(scores, {1: 0, 2: 0}, 8) == [
        "s0",
        "s1",
        "s2",
        "s3",
        "s5",
        "s6",
        "s7",
        "s8",
    ]
    assert choose_samples(scores, {}, 2) == ["s0", "s1"]


def test_a_sample_is_there_once_with_the_answers_of_all_runs(make_pair: Any) -> None:
    scores = [(1.0, 0.4), (0.2, 0.5), (1.0, 1.0)]
    base = [line(index, before) for index, (before, _) in enumerate(scores)]
    pruned = [line(index, after) for index, (_, after) in enumerate(scores)]
    (gallery,), images, _ = make_pair([*base, line(98, 1.0)], [*reversed(pruned), line(99, 0.0)])
    data = gallery.data
    assert (gallery.title, data["runs"], data["total"]) == ("shapes · tiny · acc@0.5", [0, 1], 5)
    assert data["changes"] == {1: {"regressed": 1, "fixed": 1}}
    assert [sample["key"] for sample in data["samples"]] == ["s0", "s1", "s2", "s98", "s99"]
    fixed = data["samples"][1]
    assert (fixed["question"], fixed["answer"]) == ("the <blue> square", "10, 10, 90, 30")
    assert {n: run["text"] for n, run in fixed["runs"].items()} == {0: "box 0.2", 1: "box 0.5"}
    answer = fixed["runs"][1]
    assert (answer["kept"], answer["visual"], answer["codes"]) == (2, 4, ["a..b"])
    assert (answer["box"], fixed["box"]) == ([0.0, 0.0, 50.0, 50.0], [10.0, 10.0, 90.0, 30.2])
    assert [name for name, _ in data["reasons"]] == ["ivc", "foreground"]
    assert (len(data["layouts"]), images) == (1, [])


def test_tokens_in_the_true_box_are_those_of_the_last_stage(make_pair: Any) -> None:
    (gallery,), *_ = make_pair([line(0, 1.0)], [line(0, 0.0, kept_in_box=[0.75, 0.5])])
    runs = gallery.data["samples"][0]["runs"]
    assert (runs[0]["inBox"], runs[1]["inBox"]) == (None, 0.5)


def test_a_span_of_time_is_shown_in_seconds(make_pair: Any) -> None:
    changes = {"task": "temporal_grounding", "answer": [24.3, 30.45], "parsed": [1.0, 2.0]}
    (gallery,), *_ = make_pair([line(0, 1.0, **changes)], [line(0, 0.0, **changes)])
    assert gallery.data["samples"][0]["answer"] == "24.3 s - 30.4 s"


def test_of_a_long_video_eight_moments_are_shown(make_pair: Any) -> None:
    grids = [{"start": 3 + 4 * n, "rows": 2, "columns": 2, "kind": "frame"} for n in range(384)]
    changes = {
        "image_size": None, "images": [{"grids": grids}], "visual_tokens": 4 * 384,
        "task": "yes_no", "answer": "Yes", "parsed": None,
    }  # fmt: skip
    (gallery,), *_ = make_pair([line(0, 1.0, **changes)], [line(0, 0.0, **changes)])
    (panels,) = gallery.data["layouts"]
    assert len(panels) == 8
    (panel,) = panels[-1]
    assert panel["start"] == 4 * 383
    (codes,) = gallery.data["samples"][0]["runs"][1]["codes"]
    assert len(codes) == 4 * 384


def test_options_and_failures_are_reported(make_pair: Any) -> None:
    changes = {
        "task": "multiple_choice", "options": ["cat", "dog"], "answer": "B", "parsed": None,
    }  # fmt: skip
    failed = {"failed": "broken image", "images": [], "visual_tokens": 0}
    (gallery,), *_ = make_pair([line(0, 1.0, **changes)], [line(0, 0.0, **changes, **failed)])
    (sample,) = gallery.data["samples"]
    assert (*sample["options"], sample["answer"]) == ("cat", "dog", "B")
    assert sample["runs"][1]["text"] == "failed: broken image"
    assert sample["runs"][1]["codes"] == []


def test_thumbnails_and_frames_have_panels_of_their_own(make_pair: Any) -> None:
    grids = [
        {**GRID, "kind": kind, "start": 3 + 4 * number}
        for number, kind in enumerate(("thumbnail", "tile", "tile", "frame"))
    ]
    changes = {"visual_tokens": 16, "images": [{"grids": grids}]}
    (gallery,), *_ = make_pair([line(0, 1.0, **changes)], [line(0, 0.0, **changes)])
    (layout,) = gallery.data["layouts"]
    assert [[grid["kind"] for grid in panel] for panel in layout] == [
        ["tile", "tile"], ["thumbnail"], ["frame"],
    ]  # fmt: skip
    assert [panel[0]["start"] for panel in layout] == [4, 0, 12]


def test_images_are_read_from_the_dataset_once(make_pair: Any) -> None:
    scenes = Shapes(task="grounding", size=3)
    lines = [line(index, 1.0, id=scenes[index].id) for index in range(3)]
    other = line(2, 1.0, id="another")
    config = {"dataset": SHAPES}
    (gallery,), images, (problem,) = make_pair(lines[:2], [*lines[:2], other], config=config)
    assert [sample["images"] for sample in gallery.data["samples"]] == [[0], [1], []]
    assert "images of 1 of 3 samples could not be read (they are other samples now)" in problem
    for image, scene in zip(images, scenes, strict=False):
        copy = Image.open(io.BytesIO(image))
        assert copy.size == scene.images[0].size
        far = [
            abs(a - b)
            for x in (20, 100)
            for a, b in zip(copy.getpixel((x, 90)), scene.images[0].getpixel((x, 90)), strict=True)
        ]
        assert max(far) < 30


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "names no dataset"),
        ({"_target_": "os.system", "command": "true"}, "os.system, is not of this package"),
        ({"_target_": "ivcp.datasets.shapes.make_scene", "index": 1}, "is no class"),
        ({"_target_": "ivcp.datasets.shapes.Path"}, "cannot be read"),
        ({"_target_": "ivcp.datasets.shapes.Shapes", "task": 3}, "task must be one of"),
        ({"a": {"_target_": "os.system"}, "_target_": "ivcp.datasets.tsv.TsvBenchmark"}, "os.sys"),
        ({"_target_": "ivcp.datasets.tsv.TsvBenchmark", "name": "POPE", "task": "yes_no",
          "root": "/nowhere", "url": "https://example.org/a.tsv", "download": True}, "nowhere"),
    ],
)  # fmt: skip
def test_a_record_makes_no_other_objects_and_downloads_nothing(config: Any, reason: str) -> None:
    with pytest.raises(Exception, match=reason) as caught:
        make_dataset(config)
    assert type(caught.value).__name__ == "UserError"


def test_saved_overlays_stand_in_where_the_dataset_is_not(make_pair: Any, tmp_path: Path) -> None:
    make_pair([], [])
    (tmp_path / "pruned/pictures").mkdir()
    for number in (1, 2, 10):
        path = tmp_path / f"pruned/pictures/000_s0_{number}.png"
        Image.new("RGB", (1280, 10 * number), "blue").save(path)
    (gallery,), images, _ = make_pair([line(0, 1.0), line(1, 1.0)], [line(0, 0.0), line(1, 0.0)])
    shown, other = gallery.data["samples"]
    assert shown["runs"][1]["saved"] == [0, 1, 2]
    assert "saved" not in shown["runs"][0]
    assert "saved" not in other["runs"][1]
    assert [Image.open(io.BytesIO(image)).size for image in images] == [
        (640, 5),
        (640, 10),
        (640, 50),
    ]


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
    _, images, problems = make_pair([line(0, 1.0)], [line(0, 0.0)])
    assert images == []
    assert any(f"000_s0.png {reason}" in problem for problem in problems)


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
        ({"image_size": [-1, 5]}, ""),
        ({"kept": [3, 99], "reasons": {"ivc": [98]}}, ""),
        ({"image_size": [10**9, 10**9]}, ""),
        ({"image_size": [10**9, 1]}, ""),
        ({"images": [{"grids": [{**GRID, "area": [-99, -99, 99, 99]}]}]}, ""),
        ({"parsed": [-1e308, -1e308, 1e308, 1e308]}, ""),
        ({"parsed": [float("nan")] * 4}, ""),
        ({"answer": [float("nan")] * 4}, ""),
        ({"parsed": ["a"] * 4, "answer": ["b"] * 4}, ""),
        ({"reasons": {"x" * 10**6: [3]}}, ""),
        ({"kept": [], "reasons": {}}, ""),
    ],
)  # fmt: skip
def test_odd_layouts_and_boxes_cost_no_more_than_their_image(
    make_pair: Any, change: dict[str, Any], problem: str
) -> None:
    (gallery,), *_ = make_pair([line(0, 1.0)], [line(0, 0.0, **change)])
    answer = gallery.data["samples"][0]["runs"][1]
    assert problem in answer.get("problem", "")
    assert ("codes" in answer) == (not problem)
    assert len(json.dumps(gallery.data, allow_nan=False)) < 5000


def test_runs_that_are_left_out_are_reported(make_run: Any, read_entries: Any) -> None:
    make_run("base", pruner="none", value=0.5)
    make_run("other", pruner="ivcp", value=0.1)
    galleries, _, problems = make_galleries(read_entries(), 40, most_runs=1)
    assert galleries == []
    assert "predictions.jsonl is missing" in problems[0]
    assert problems[1].startswith("Samples of the first 1 of 2 runs are on the page")


@pytest.mark.parametrize("text", ["{", "[1]\n", '{"index": 3}\n', "\udcff\n", "[" * 10**5 + "\n"])
def test_a_foreign_file_is_reported(
    make_pair: Any, read_entries: Any, tmp_path: Path, text: str
) -> None:
    make_pair([line(0, 1.0)], [])
    (tmp_path / "pruned/predictions.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    _, _, problems = make_galleries(read_entries(), 40)
    assert any("predictions.jsonl is damaged at line 1." in problem for problem in problems)
