"""The page: parsed, and held against what it must hold and must not."""

from __future__ import annotations

import base64
import io
import json
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ivcp.report import page as page_module
from ivcp.report.__main__ import main

STYLE = (Path(page_module.__file__).parent / page_module.STYLE).read_text(encoding="utf-8")
NASTY = "<script>alert('&amp;')</script>\" $\\frac{$"
VOID = {"meta", "img", "br", "link", "input"}
POINTING = {"href", "src", "srcset", "action", "data", "poster", "background", "xlink:href"}


class Reader(HTMLParser):
    """Elements, texts and images of a page whose elements must be closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.metas: dict[str | None, str | None] = {}
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        self.tags.add(tag)
        self.targets += [value or "" for name, value in attrs if name in POINTING]
        self.ids.add(attributes.get("id") or "")
        if tag == "meta":
            self.metas[attributes.get("http-equiv") or attributes.get("name")] = attributes.get(
                "content"
            )
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def folder(make_run_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds runs and their report."""
    parent = tmp_path_factory.mktemp("page")
    make_run = partial(make_run_in, parent)
    for pruner, scores in (("none", (1.0, 1.0, 0.0)), ("ivcp", (0.0, 1.0, 1.0))):
        run = make_run(
            f"runs/{pruner}", pruner=pruner, value=0.5, layers=[4], notes=[NASTY],
            config={"prompt": NASTY},
        )  # fmt: skip
        lines = [
            {
                "index": index,
                "id": f"{NASTY}{index}",
                "question": NASTY,
                "answer": NASTY,
                "prediction": NASTY,
                "score": score,
                "visual_tokens": 9,
                "images": [{"grids": [{"start": 5, "rows": 3, "columns": 3}]}],
                "kept": [5, 9],
                "reasons": {"ivc": [5], "foreground": [9]},
            }
            for index, score in enumerate(scores)
        ]
        (run / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    make_run("runs/nasty", pruner=NASTY, value=0.4, dataset=NASTY, model=NASTY)
    make_run("runs/low", pruner="ivcp", value=0.3, ratio=0.1, layers=[4])
    (parent / "runs/torn").mkdir()
    (parent / "runs/torn/metrics.json").write_text("{")
    assert main([str(parent / "runs"), "--out", str(parent / "out")]) == 0
    return parent


@pytest.fixture(scope="module")
def page(folder: Path) -> Reader:
    return Reader((folder / "out/report.html").read_text(encoding="utf-8"))


def test_nothing_points_outside(page: Reader) -> None:
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    for target in page.targets:
        assert target.startswith(("#", "data:image/png;base64,", "data:image/jpeg;base64,"))
    assert {target[1:] for target in page.targets if target[0] == "#"} <= page.ids
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    policy = page.metas["Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_images_are_complete(page: Reader) -> None:
    images = [target.split(",")[1] for target in page.targets if target.startswith("data:")]
    assert len(images) == 2 + 1 + 1 + 2  # costs of two sets, ratio, positions, two samples
    for data in images:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            image.load()


def test_every_run_is_in_it(page: Reader, folder: Path) -> None:
    for method in (
        ["Unpruned", "1", "-", "50.0"], ["IVC-Prune", "0.5", "4", "50.0"],
        ["IVC-Prune", "0.1", "4", "30.0"],
        [NASTY, "0.5", "40.0"],
    ):  # fmt: skip
        assert sum(row[: len(method)] == method for row in page.rows) == 1
    text = "".join(page.words)
    for name in ("none", "ivcp", "low", "nasty"):
        assert str(folder / "runs" / name) in text
    assert "4 runs, 1 skipped." in text
    assert "torn/metrics.json is not the result of a run" in text


def test_columns_of_which_nothing_is_known_are_left_out(page: Reader) -> None:
    nasty, shapes = (row for row in page.rows if row[0] == "method")
    assert "layer" in shapes
    assert {"layer", "ofunpruned %"}.isdisjoint(nasty)
    assert {"p", "fixed", "regressed"}.isdisjoint(shapes)


def test_text_is_escaped(page: Reader) -> None:
    assert page.words.count(NASTY) >= 12  # cells, questions, answers, settings, notes
    assert any(f"· {NASTY}0" in words for words in page.words)


def test_samples_settings_and_notes_are_reported(page: Reader) -> None:
    words = page.words
    assert (
        "shapes · tiny · ivcp at 0.5, layer 4: 1 regressed, 1 fixed of 3 samples (2 shown)" in words
    )
    assert [word for word in words if word in ("regressed", "fixed")][-2:] == ["regressed", "fixed"]
    assert "config.prompt" in words
    assert any("predictions.jsonl is missing" in one for one in words)


def test_it_fits_phones_and_the_dark(page: Reader) -> None:
    assert page.metas["viewport"] == "width=device-width, initial-scale=1"
    assert "prefers-color-scheme: dark" in STYLE
