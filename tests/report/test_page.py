"""The page: parsed, and held against what it must hold and must not."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import runpy
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ivcp.report import page as page_module
from ivcp.report.__main__ import main
from ivcp.report.columns import Where
from ivcp.report.meanings import COLUMN_MEANINGS
from ivcp.report.tables import columns_of

ASSETS = Path(page_module.__file__).parent / "assets"
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
        self.scripts: list[str | None] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self.data: dict[str, str] = {}
        self.metas: dict[str | None, str | None] = {}
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        self.scripts += [attributes.get("type")] if tag == "script" else []
        self.tags.add(tag)
        self.targets += [value or "" for name, value in attrs if name in POINTING]
        self.ids.add(attributes.get("id") or "")
        if tag == "meta":
            self.metas[attributes.get("http-equiv") or attributes.get("name")] = attributes.get(
                "content"
            )
        if tag in self.texts:
            self.texts[tag].append("")
            self.element = attributes.get("id") or ""
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] in self.texts:
            self.texts[self.open[-1]][-1] += data
            self.data[self.element] = self.data.get(self.element, "") + data
        elif self.open:
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
    assert page.tags.isdisjoint({"link", "iframe", "object", "embed", "base", "form", "img"})
    assert all(target.startswith("#") for target in page.targets)
    assert {target[1:] for target in page.targets} <= page.ids
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_only_the_scripts_and_styles_of_the_package_may_run(page: Reader) -> None:
    policy = dict(
        directive.strip().split(" ", 1)
        for directive in (page.metas["Content-Security-Policy"] or "").strip("; ").split(";")
    )
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["img-src"] == "data:"
    assert policy.keys() == {
        "default-src", "base-uri", "form-action", "img-src", "script-src", "style-src",
    }  # fmt: skip
    texts = zip(page.scripts, page.texts["script"], strict=True)
    code = [text for kind, text in texts if kind is None]
    assert len(code) == 4
    for name, elements in (("script-src", code), ("style-src", page.texts["style"])):
        hashes = [hashlib.sha256(text.encode()).digest() for text in elements]
        assert policy[name].split() == [
            f"'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes
        ]


def test_every_run_is_in_it(page: Reader, folder: Path) -> None:
    heads = next(row for row in page.rows if row[0] == "method")
    wanted = [heads.index(name) for name in ("method", "ratio", "layer", "score")]
    shown = [[row[i] for i in wanted] for row in page.rows if len(row) == len(heads)]
    for method in (["Unpruned", "1", "-", "50.0"], ["IVC-Prune", "0.5", "4", "50.0"],
                   ["IVC-Prune", "0.1", "4", "30.0"], [NASTY, "0.5", "-", "40.0"]):  # fmt: skip
        assert shown.count(method) == 1
    text = "".join(page.words)
    for name in ("none", "ivcp", "low", "nasty"):
        assert str(folder / "runs" / name) in text
    assert "4 runs, 1 skipped." in text
    assert "torn/metrics.json is not the result of a run" in text


def test_columns_of_which_nothing_is_known_are_left_out(page: Reader) -> None:
    (heads,) = (row for row in page.rows if row[:1] == ["method"])
    assert {"layer", "of unpruned %", "difference [95 %]"} <= set(heads)
    assert {"p", "fixed", "regressed"}.isdisjoint(heads)


def test_every_column_has_a_meaning() -> None:
    assert {column.name for column in columns_of(Where.LIST)} == COLUMN_MEANINGS.keys()


def test_text_is_escaped(page: Reader) -> None:
    assert page.words.count(NASTY) >= 6  # cells, settings, notes
    assert "<" not in page.data["data"]
    runs = json.loads(page.data["data"])["runs"]
    assert [run["pruner"] for run in runs if run["dataset"] == NASTY] == [NASTY]


def test_samples_settings_and_notes_are_reported(page: Reader) -> None:
    (gallery,) = [packed for name, packed in page.data.items() if name.startswith("samples-")]
    samples = json.loads(gzip.decompress(base64.b64decode(gallery)))
    assert samples["changes"] == {"2": {"regressed": 1, "fixed": 1}}
    assert {sample["question"] for sample in samples["samples"]} == {NASTY}
    settings = json.loads(gzip.decompress(base64.b64decode(page.data["settings-data"])))
    assert [run.get("config.prompt") for run in settings["runs"]].count(NASTY) == 2
    assert "config.prompt" in page.words
    assert any("predictions.jsonl is missing" in words for words in page.words)


def test_a_budget_names_its_best_method_and_who_loses_to_random(
    make_run: Any, tmp_path: Path
) -> None:
    for name, pruner, ratio, value in (
        ("0", "none", 1.0, 0.9), ("1", "ivcp", 0.5, 0.8), ("2", "fastv", 0.5, 0.5),
        ("3", "random", 0.5, 0.55), ("4", "random", 0.5, 0.65), ("5", "ivcp", 0.1, 0.3),
    ):  # fmt: skip
        make_run(f"runs/{name}", pruner=pruner, ratio=ratio, value=value, layers=[int(name)])
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    page = Reader((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    glance = [row for row in page.rows if row[0] in ("50 %", "10 %")]
    assert glance == [
        ["50 %", "shapes · tiny", "90.0", "IVC-Prune", "80.0", "-10.0", "60.0", "fastv"],
        ["10 %", "shapes · tiny", "90.0", "IVC-Prune", "30.0", "-60.0", "-", "-"],
    ]
    marks = page.rows[[row[0] for row in page.rows].index("method")].index("marks")
    assert [row[marks] for row in page.rows if row[0] == "fastv"] == ["↓ below random"]
    assert [row[marks] for row in page.rows if row[0] == "IVC-Prune"] == ["★ best", ""]


def test_settings_of_many_runs_are_not_listed(make_run: Any, tmp_path: Path) -> None:
    for number in range(61):
        make_run(f"runs/{number}", pruner="ivcp", value=0.5, config={"seed": number})
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    page = Reader((tmp_path / "out/report.html").read_text(encoding="utf-8"))
    assert "Settings of single runs: choose two runs above." in page.words


def test_the_libraries_are_those_of_the_packages() -> None:
    pytest.importorskip("vl_convert")
    pytest.importorskip("itables")
    make = runpy.run_path(str(ASSETS / "make.py"))
    for name, text in make["libraries"]().items():
        assert gzip.decompress((ASSETS / f"{name}.gz").read_bytes()).decode() == text


def test_it_fits_phones_and_the_dark(page: Reader) -> None:
    assert page.metas["viewport"] == "width=device-width, initial-scale=1"
    assert "color-scheme: light dark" in STYLE
