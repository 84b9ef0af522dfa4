"""Code and commands of the documentation: examples run, commands compose, recipes work."""

from __future__ import annotations

import ast
import doctest
import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from command import run_py
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from test_conf import composed
from untrained import save_untrained

import ivcp

ROOT = Path(__file__).parents[1]
DOCS, CONF = ROOT / "docs", ROOT / "conf"
PAGES = [ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
LESS = ("trainer=cpu", "logger=none", "workers=0", "pictures=0", "generation.max_new_tokens=2")
RUNS = ("python run.py ", "ivcp run ")


def blocks(page: Path, language: str) -> list[str]:
    """Code blocks of a page, without the indentation of a list."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S
    )
    return [re.sub(rf"^{indent}", "", text, flags=re.M) for indent, text in found]


def commands() -> list[str]:
    """Every command that starts a run, as one line, but those behind `srun` and `torchrun`."""
    lines = [
        line.partition(" #")[0].strip()
        for page in PAGES
        for block in blocks(page, "bash")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return sorted({line for line in lines if line.startswith(RUNS) and "--config-dir" not in line})


def words_of(command: str) -> list[str]:
    """Overrides of a command, the first value of each sweep."""
    words = [word for word in shlex.split(command)[2:] if not word.startswith("-")]
    words = [word for word in words if word != "job" and not word.startswith("install=")]
    first = []
    for override in OverridesParser.create().parse_overrides(words):
        if override.is_sweep_override():
            first.append(f"{override.get_key_element()}={next(override.sweep_string_iterator())}")
        else:
            first.append(override.input_line)
    return first


@pytest.mark.parametrize("command", commands())
def test_a_command_composes(command: str) -> None:
    words = words_of(command)
    if "pruner=mine" in words or "model=mine" in words or "pruner=strided" in words:
        pytest.skip("a method or model that the recipe adds")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", words, return_hydra_config=True)
    for name in ("pruner", "model", "dataset", "metric"):
        instantiate(cfg[name])


def test_commands_are_found() -> None:
    assert len(commands()) > 40
    assert any(command.startswith("ivcp run") for command in commands())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_of_a_page_parses_and_imports_what_is_there(page: Path) -> None:
    for block in blocks(page, "python"):
        if ">>>" in block:
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ivcp"):
                module = import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


@pytest.mark.parametrize("name", ["concepts/stages", "concepts/positions"])
def test_an_example_runs(name: str) -> None:
    (block,) = blocks(DOCS / f"{name}.md", "python")
    assert "assert " in block
    exec(compile(block, name, "exec"), {})


def test_numbers_of_the_page_about_budgets() -> None:
    failed, tried = doctest.testfile(str(DOCS / "concepts" / "budgets.md"), module_relative=False)
    assert (failed, tried > 5) == (0, True)


def test_the_first_snippet_runs(tmp_path, monkeypatch) -> None:
    if not hasattr(ivcp, "ask"):
        pytest.skip("needs ivcp.load, ivcp.load_dataset and ivcp.ask")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(DOCS / "index.md", "python")[0], "index", "exec"), {})
    assert (tmp_path / "kept.png").exists()


def test_own_questions_and_boxes_are_evaluated_as_the_page_says(tmp_path, monkeypatch) -> None:
    pytest.importorskip("datasets")
    page = DOCS / "own-data.md"
    questions, boxes = blocks(page, "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(questions, "questions", "exec"), {})
    exec(compile(boxes, "boxes", "exec"), {})
    (tmp_path / "my-conf" / "dataset").mkdir(parents=True)
    (tmp_path / "my-conf" / "dataset" / "colors.yaml").write_text(blocks(page, "yaml")[0])
    path = f"model.path={save_untrained(tmp_path / 'model', layers=4)}"
    for block, samples, ids in zip(
        blocks(page, "bash"), (3, 2), (["1", "2", "3"], ["1-0", "1-1"]), strict=True
    ):
        words = shlex.split(block)[2:]
        assert run_py(*words, path, *LESS, f"hydra.run.dir=run{samples}") == 0
        run = json.loads(Path(f"run{samples}/metrics.json").read_text())["run"]
        assert (run["samples"], run["failed_samples"]) == (samples, 0)
        lines = Path(f"run{samples}/predictions.jsonl").read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == ids


@pytest.fixture
def strided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of the recipe, installed as pip would."""
    page = ROOT / "CONTRIBUTING.md"
    (project,) = blocks(page, "toml")
    (module,) = (text for text in blocks(page, "python") if "class Strided" in text)
    (tmp_path / "strided.py").write_text(module)
    group, entry = re.findall(r'entry-points."(.+)"]\n(.+)', project)[0]
    info = tmp_path / "strided-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strided\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_method_of_a_package_of_ones_own(strided: Path, monkeypatch, capsys) -> None:
    (command,) = (
        line
        for block in blocks(ROOT / "CONTRIBUTING.md", "bash")
        for line in block.splitlines()
        if line.startswith("python run.py pruner=strided")
    )
    monkeypatch.chdir(strided)
    assert run_py(*shlex.split(command)[2:], *LESS, "hydra.run.dir=run") == 0
    report = json.loads(Path("run/metrics.json").read_text())
    assert (report["run"]["pruner"], report["run"]["layers"]) == ("strided", [4])
    assert report["tokens"]["kept"] == 43


def test_the_test_of_the_recipe_passes(strided: Path) -> None:
    (text,) = (text for text in blocks(ROOT / "CONTRIBUTING.md", "python") if "SMALL" in text)
    namespace: dict = {}
    exec(compile(text, "recipe", "exec"), namespace)
    for family in ("qwen25vl", "internvl"):
        namespace["test_half_of_the_visual_tokens_remain"](family)


def test_the_numbers_of_questions_are_those_of_the_datasets() -> None:
    text = (DOCS / "paper.md").read_text(encoding="utf-8")
    for group, field, others in (
        ("grounding", "expressions", 0),
        ("general_vqa", "rows", 5127),  # POPE's file has no published number, but is evaluated so
    ):
        tasks = composed(f"dataset={group}").dataset.tasks.values()
        total = sum(task.dataset[field] or 0 for task in tasks) + others
        assert f"{total:,}" in text, field
        assert f"{9 * total:,}" in text, field
