"""The page in a browser: a reader's clicks, small screens, paper, the dark, screen readers."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_results import write_predictions
from PIL import Image

from ivcp.core.layout import Grid, ImageLayout
from ivcp.datasets.shapes import Shapes
from ivcp.metrics.grounding import GroundingMetrics
from ivcp.report.__main__ import main
from ivcp.results.prediction import Prediction

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUMS = ("/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome")
SAMPLES = 12
SHAPES = Shapes(task="grounding", size=SAMPLES)
SHAPES_CONFIG = {
    "dataset": {"_target_": "ivcp.datasets.shapes.Shapes", "task": "grounding", "size": SAMPLES}
}
LAYOUT = ImageLayout((Grid(start=4, rows=12, columns=12),))
HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>alert(2)</script>",
    "${alert(3)}{{4*4}}\u2028\u202e'\"`",
    "<svg/onload=alert(5)>&lt;b&gt;",
)


def grounding_predictions(wrong: set[int], kept: range) -> list[Prediction]:
    """Predictions on the scenes, those of some samples far off."""
    predictions = []
    for index in range(SAMPLES):
        sample = SHAPES[index]
        box = (0.0, 0.0, 5.0, 5.0) if index in wrong else sample.answer
        predictions.append(
            Prediction(
                index=index,
                id=sample.id,
                task="grounding",
                question=sample.question,
                answer=sample.answer,
                prediction=f"box {box}",
                parsed=box,
                score=0.0 if index in wrong else 1.0,
                image_size=sample.images[0].size,
                visual_tokens=144,
                kept_tokens=len(kept),
                images=(LAYOUT,),
                kept=tuple(kept),
                reasons={"ivc": tuple(kept[:10]), "foreground": tuple(kept[10:])},
                labels={"category": "odd" if index % 2 else "even"},
            )
        )
    return predictions


@pytest.fixture(scope="module")
def runs(make_run_in: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of four methods at two budgets, on scenes that anyone can render again."""
    parent = tmp_path_factory.mktemp("runs")
    wrong = {
        ("none", 1.0): {0}, ("ivcp", 0.5): {0, 1}, ("ivcp", 0.2): {1, 2, 3},
        ("fastv", 0.5): set(range(9)), ("fastv", 0.2): set(range(11)),
        ("random", 0.5): {0, 1, 2, 3}, ("random", 0.2): {0, 1, 2, 3, 4},
    }  # fmt: skip
    metric = GroundingMetrics()
    for (pruner, ratio), samples in wrong.items():
        kept = range(4, 148) if pruner == "none" else range(4, 4 + round(144 * ratio))
        predictions = grounding_predictions(samples, kept)
        values = metric.values([prediction.scored() for prediction in predictions])
        folder = make_run_in(
            parent, f"{pruner}-{ratio}", pruner=pruner, ratio=ratio, value=values["acc@0.5"],
            values=values, samples=SAMPLES, layers=() if pruner == "none" else (4,),
            metric={"metric": "ivcp.metrics.grounding.GroundingMetrics"},
            config={**SHAPES_CONFIG, "pruner": {"keep_ratio": ratio, "extra": pruner}},
            overrides=[f"pruner={pruner}", f"ratio={ratio}"],
            rotary={"inverse_frequencies": [1.0, 0.1], "axes": 1},
        )  # fmt: skip
        write_predictions(folder, predictions)
    make_run_in(parent, "other", pruner="fastv", value=0.4, dataset="zoo", model="llava15")
    return parent


@pytest.fixture(scope="module")
def report(runs: Path) -> Path:
    assert main([str(runs), "--out", str(runs / "out"), "--quiet"]) == 0
    return runs / "out/report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        bundled = playwright.chromium.executable_path
        path = next((p for p in (bundled, *CHROMIUMS) if Path(p).is_file()), None)
        if path is None:
            pytest.skip("no chromium is installed: apt-get install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page; afterwards nothing was requested, no script failed and no dialog appeared."""
    problems: list[str] = []
    pages = []

    def watch(request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            problems.append(f"requested {request.url}")

    def open_path(path: Path, width: int = 1400, scheme: str = "light") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"dialog {dialog.message}"))
        page.on("console", lambda m: is_problem(m) and problems.append(m.text))
        page.on("request", watch)
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready]")
        pages.append(page)
        return page

    def is_problem(message: Any) -> bool:
        return message.type in ("error", "warning") and "willReadFrequently" not in message.text

    yield open_path
    for page in pages:
        page.close()
    assert problems == []


def methods(page: Any, count: int | None = None) -> list[str]:
    """Method and ratio of the rows that are shown, in their order; of the first ones, if fewer."""
    rows: list[str] = page.locator("#runs tbody tr[data-run]").evaluate_all(
        """rows => rows.map((row) => [row.cells[0].lastChild, row.querySelector('.c-ratio')]
          .map((node) => node.textContent).join(' '))"""
    )
    return rows[:count]


def expect_methods(page: Any, *expected: str, first: bool = False) -> None:
    """Wait until these rows are shown, or begin the table: it is drawn after the click."""
    for _ in range(100):
        if methods(page, len(expected) if first else None) == [*expected]:
            return
        page.wait_for_timeout(50)
    assert methods(page) == [*expected]


def show_samples(page: Any) -> None:
    page.locator("#viewer").scroll_into_view_if_needed()
    page.wait_for_selector("#sample .card canvas")


def test_table_is_sorted_filtered_and_its_columns_are_chosen(open_page: Any, report: Path) -> None:
    page = open_page(report)
    assert len(methods(page)) == 8
    page.locator("#runs thead th.c-value .dt-column-order").click()
    expect_methods(page, "fastv 0.2", first=True)
    assert page.locator("#runs thead th.c-value").get_attribute("aria-sort") == "ascending"
    page.locator("#runs thead th.c-value .dt-column-order").click()
    expect_methods(page, "Unpruned 1", first=True)
    page.select_option("#filter-dataset", "shapes")
    page.select_option("#filter-method", "IVC-Prune")
    expect_methods(page, "IVC-Prune 0.5", "IVC-Prune 0.2")
    page.select_option("#filter-budget", "20 %")
    expect_methods(page, "IVC-Prune 0.2")
    assert page.locator("#count").inner_text() == "1 of 8 runs"
    page.click("#reset")
    page.select_option("#filter-mark", "↓ below random")
    expect_methods(page, "fastv 0.5", "fastv 0.2")
    page.click("#reset")
    page.fill("#search", "zoo")
    expect_methods(page, "fastv 0.5")
    page.click("#reset")
    assert page.locator("#runs thead th.c-fixed").count() == 0
    page.click("#columns summary")
    page.get_by_label("fixed", exact=True).check()
    page.get_by_role("checkbox", name="KV %").uncheck()
    assert page.locator("#runs thead th.c-fixed").is_visible()
    assert page.locator("#runs thead th.c-kv_cache_ratio").count() == 0


def test_marks_have_words_and_the_best_and_the_losers_are_named(
    open_page: Any, report: Path
) -> None:
    page = open_page(report)
    texts = page.locator("#runs tbody tr:has-text('fastv') .c-marks").all_inner_texts()
    assert [text.split("\n") for text in texts[:2]] == [["▼ worse ↓ below random"]] * 2
    best = page.locator("#runs tbody tr:has(.mark.best) th").all_inner_texts()
    assert [text.lstrip("▸ ") for text in best] == ["IVC-Prune", "IVC-Prune"]
    glance = page.locator(".glance tbody tr").all_inner_texts()
    assert [glance[0].split("\t")[number] for number in (3, 7)] == ["IVC-Prune", "fastv"]
    page.get_by_text("What the columns and marks mean").click()
    for heading in page.locator("#runs thead .dt-column-title").all_inner_texts():
        assert page.locator(f'.legend dt:text-is("{heading}")').count() == 1 or heading == "marks"


def test_a_row_leads_to_its_command_samples_and_settings(open_page: Any, report: Path) -> None:
    page = open_page(report)
    page.get_by_role("button", name="Details of run fastv").first.click()
    details = page.locator(".details")
    command = shlex.split(details.locator("code").inner_text())
    assert command == ["ivcp", "run", "pruner=fastv", "ratio=0.5"]
    details.get_by_text("Samples of this run").click()
    page.wait_for_selector("#sample .card.regressed")
    assert page.locator("#change").input_value() == "regressed"
    assert page.locator("#sample .card").nth(1).inner_text().startswith("fastv")
    details.get_by_text("Settings of this run").click()
    page.wait_for_selector("#comparison tbody tr")
    rows = page.locator("#comparison tbody tr").all_inner_texts()
    assert "config.pruner.extra\tnone\tfastv" in rows
    assert not any(row.startswith("config.dataset") for row in rows)


def test_plots_follow_the_filter_the_legend_and_the_switch(open_page: Any, report: Path) -> None:
    page = open_page(report)
    page.locator("#charts").scroll_into_view_if_needed()
    points = page.locator("#charts figure:first-child .mark-symbol path")
    api.expect(points).to_have_count(7)  # with the unpruned run
    page.get_by_role("button", name="fastv", exact=True).click()
    api.expect(points).to_have_count(5)
    page.select_option("#filter-budget", "20 %")
    api.expect(points).to_have_count(4)  # ivcp, and the controls of all budgets
    assert "unpruned 91.7" in page.locator("#charts").inner_text()
    page.click("#reset")
    page.get_by_role("button", name="fastv", exact=True).click()
    api.expect(points).to_have_count(7)
    page.select_option("#axis", "flops")
    api.expect(page.locator("#charts figure:first-child")).to_contain_text("prefill FLOPs")
    points.first.hover()
    tip = page.locator("#vg-tooltip-element")
    api.expect(tip).to_be_visible()
    for word in ("run", "score", "difference to unpruned", "KV cache", "prefill FLOPs", "time"):
        assert word in tip.inner_text()
    points.first.click()
    api.expect(page.locator(".details")).to_be_visible()


def test_times_are_compared_within_one_sweep_alone(
    open_page: Any, runs: Path, tmp_path: Path
) -> None:
    options = ["--out", str(tmp_path), "--where", "dataset=shapes", "--quiet"]
    assert main([str(runs), *options]) == 0
    assert "time" in axes(open_page(tmp_path / "report.html"))
    moved = tmp_path / "elsewhere/fastv"
    moved.parent.mkdir()
    moved.symlink_to(runs / "fastv-0.5")
    data = json.loads((moved / "metrics.json").read_text())
    data["run"]["device"] = "another GPU"
    copy = tmp_path / "copies/fastv"
    copy.mkdir(parents=True)
    (copy / "metrics.json").write_text(json.dumps(data))
    assert main([str(runs), str(copy), *options]) == 0
    assert "time" not in axes(open_page(tmp_path / "report.html"))


def axes(page: Any) -> list[str]:
    options: list[str] = page.evaluate("[...document.getElementById('axis')].map((o) => o.value)")
    return options


def test_samples_are_walked_through_and_filtered(open_page: Any, report: Path) -> None:
    page = open_page(report)
    show_samples(page)
    position = page.locator("#position")
    api.expect(position).to_have_text("1 of 12 of the 12 samples here (12 in all)")
    api.expect(page.locator("#sample .card")).to_have_count(7)
    assert page.locator("#sample h3").inner_text() == SHAPES[0].question
    page.click("#next")
    api.expect(page.locator("#sample h3")).to_have_text(SHAPES[1].question)
    page.keyboard.press("ArrowRight")
    api.expect(page.locator("#sample h3")).to_have_text(SHAPES[2].question)
    page.keyboard.press("ArrowLeft")
    api.expect(page.locator("#sample h3")).to_have_text(SHAPES[1].question)
    page.select_option("#change", "fixed")
    api.expect(position).to_contain_text("1 of 1 of")  # ivcp at 0.2 has the first sample right
    page.select_option("#change", "regressed")
    page.select_option("#by", label="IVC-Prune · 50 % · layer 4")
    api.expect(position).to_contain_text("1 of 1 of")
    page.select_option("#by", label="any method")
    page.select_option("#change", "disagree")
    api.expect(position).to_contain_text("1 of 11 of")
    page.select_option("#category", "category: odd")
    api.expect(position).to_contain_text("1 of 5 of")
    page.select_option("#change", "all")
    page.fill("#text", SHAPES[3].question)
    api.expect(page.locator("#sample h3")).to_have_text(SHAPES[3].question)
    page.fill("#text", "no such words")
    api.expect(page.locator("#sample")).to_have_text("No sample passes these filters.")


def test_an_image_is_shared_and_its_tokens_are_drawn(open_page: Any, report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert len(re.findall(r'id="image-\d+"', text)) == SAMPLES
    page = open_page(report)
    show_samples(page)
    card = page.locator("#sample .card", has_text="IVC-Prune · 20 %")
    assert "29 of 144 tokens kept" in card.inner_text()
    pixels = """canvas => { const pen = canvas.getContext('2d');
      const at = (x, y) => [...pen.getImageData(x, y, 1, 1).data].slice(0, 3);
      return [at(4, 26), at(20, 620), canvas.width]; }"""
    frame, dropped, width = card.locator("canvas").evaluate(pixels)
    assert frame == [255, 176, 0]  # the first tokens are IVC tokens: a cell has 53 pixels
    assert width == 640
    assert max(dropped) < 90
    page.uncheck("#tokens")
    plain, _, _ = card.locator("canvas").evaluate(pixels)
    image = SHAPES[0].images[0]
    assert max(abs(a - b) for a, b in zip(plain, image.getpixel((1, 8)), strict=True)) < 40
    card.locator("button.panel").click()
    api.expect(page.locator("#large canvas")).to_be_visible()
    page.keyboard.press("Escape")
    api.expect(page.locator("#large")).to_be_hidden()


def test_samples_without_images_or_with_frames_are_drawn_as_far_as_they_go(
    open_page: Any, make_run: Any, tmp_path: Path
) -> None:
    folder = make_run("runs/0", pruner="ivcp", value=0.5)
    frames = tuple(Grid(start=4 + 4 * n, rows=2, columns=2, kind="frame") for n in range(3))
    clip = {"visual_tokens": 12, "kept_tokens": 1, "images": (ImageLayout(frames),)}
    write_predictions(
        folder,
        [
            Prediction(index=0, id="clip", score=1.0, kept=(4,), **clip),
            Prediction(index=1, id="served", score=1.0, kept=(), **clip),
            Prediction(index=2, id="failed", score=0.0, failed="torn file"),
            Prediction(index=3, id="saved", score=1.0, kept=(4,), **clip),
        ],
    )
    (folder / "pictures").mkdir()
    Image.new("RGB", (90, 60), "red").save(folder / "pictures/003_saved.png")
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path), "--quiet"]) == 0
    page = open_page(tmp_path / "report.html")
    show_samples(page)
    assert page.locator("#sample canvas").count() == 3
    assert page.locator("#sample .card").inner_text().count("frame, without its image") == 3
    for text in ("Which tokens were kept is not known.", "failed: torn file"):
        page.click("#next")
        api.expect(page.locator("#sample .card")).to_contain_text(text)
    page.click("#next")
    assert page.locator("#sample img").evaluate("image => image.naturalWidth") == 90


def test_positions_are_plotted_on_demand(open_page: Any, report: Path) -> None:
    page = open_page(report)
    show_samples(page)
    assert page.locator("#positions-chart svg").count() == 0
    page.locator("#positions summary").click()
    chart = page.locator("#positions-chart svg")
    api.expect(chart).to_be_visible()
    api.expect(page.locator("#positions-chart")).to_contain_text("foreground")


def test_the_dark_is_chosen_by_the_system_or_the_reader(open_page: Any, report: Path) -> None:
    dark, light = "rgb(20, 23, 26)", "rgb(255, 255, 255)"
    background = "getComputedStyle(document.body).backgroundColor"
    page = open_page(report, scheme="dark")
    assert page.evaluate(background) == dark
    page.click("#theme")
    assert page.evaluate(background) == light
    page.click("#theme")
    assert (page.evaluate(background), page.locator("#theme").inner_text()) == (dark, "Theme: dark")
    page.locator("#charts").scroll_into_view_if_needed()
    page.wait_for_selector("#charts svg text")
    ink = page.evaluate("getComputedStyle(document.querySelector('#charts svg text')).fill")
    assert ink == "rgb(230, 233, 236)"


def test_nothing_is_cut_on_a_phone(open_page: Any, report: Path) -> None:
    page = open_page(report, width=400)
    show_samples(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    ends = page.locator("#runs tbody td, .glance td, .card canvas").evaluate_all(
        "nodes => nodes.map((node) => node.getBoundingClientRect().right)"
    )
    assert max(ends) <= 400
    cell = page.locator("#runs tbody td.c-prefill_flops_ratio").first
    assert cell.is_visible()
    label = cell.evaluate("node => getComputedStyle(node, '::before').content")
    assert label == '"FLOPs %"'


def test_nothing_is_cut_on_paper(open_page: Any, report: Path) -> None:
    page = open_page(report, width=1047)  # A4 across without its margins
    shown = page.locator("#runs thead th").count()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    heads = page.locator("#runs thead th")
    assert heads.count() > shown
    ends = heads.evaluate_all("nodes => nodes.map((node) => node.getBoundingClientRect().right)")
    assert max(ends) <= 1047
    assert page.locator("main details:not([open]):not(.menu)").count() == 0
    assert page.locator("#settings dd", has_text=str(report.parents[1])).first.is_visible()
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("#runs thead th").count() == shown
    assert page.locator("main details[open]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(open_page: Any, report: Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(report, scheme=scheme)
    show_samples(page)
    page.locator("#positions summary").click()
    page.get_by_role("button", name="Details of run fastv").first.click()
    page.locator("#comparison").scroll_into_view_if_needed()
    page.wait_for_selector("#comparison table")
    page.wait_for_selector("#positions-chart svg")
    results = axe.run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]})
    found = {
        violation["id"]: [node["html"][:200] for node in violation["nodes"][:3]]
        for violation in results.response["violations"]
    }
    assert found == {}


def test_what_models_and_names_say_is_text(open_page: Any, make_run: Any, tmp_path: Path) -> None:
    for number, text in enumerate(HOSTILE):
        for pruner, score in (("none", 1.0), (text, 0.0)):
            folder = make_run(
                f"runs/{number}-{score}", pruner=pruner, value=score, dataset=text, model=text,
                variant=text, notes=[text], config={"dataset": {text: text}, "pruner": {"x": text}},
                metric={"metric": text}, overrides=[text], unpruned=pruner == "none",
                primary_metric=text,
            )  # fmt: skip
            write_predictions(
                folder,
                [
                    Prediction(
                        index=0, id=text, question=text, answer=text, prediction=text, score=score,
                        options=(text,), labels={text: text}, visual_tokens=144, kept_tokens=1,
                        images=(LAYOUT,), kept=(4,), reasons={text: (4,)},
                    )
                ],
            )  # fmt: skip
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path), "--quiet"]) == 0
    page = open_page(tmp_path / "report.html")
    show_samples(page)
    page.locator("#charts").scroll_into_view_if_needed()
    page.wait_for_selector("#charts svg .mark-symbol path")
    page.locator("#charts .mark-symbol path").first.hover()
    for button in page.locator("button.more").all():
        button.click()
    for number in range(len(HOSTILE)):
        page.select_option("#gallery", str(number))
        page.select_option("#filter-dataset", index=number + 1)
        page.wait_for_timeout(100)
    page.click("#reset")
    page.locator("#comparison").scroll_into_view_if_needed()
    page.wait_for_selector("#comparison table")
    page.locator("#positions summary").click()
    assert page.locator("main img, main svg[onload], main iframe").count() == 0
    words = page.locator("body").inner_text()
    for text in HOSTILE:
        assert text.partition("\u2028")[0] in words
