"""The documentation site: pages of methods, links out of docs/, a strict build."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "pruner").glob("*.yaml"))


def loaded(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec: Any = spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = loaded("hooks")


PAGES = hooks.pages_of_methods(hooks.PAGES)


@pytest.mark.parametrize("method", [method for method in METHODS if method in PAGES])
def test_a_page_of_a_method_has_its_class_its_command_and_a_small_picture(method: str) -> None:
    text = (hooks.PAGES / PAGES[method]).read_text(encoding="utf-8")
    assert f"::: {hooks.class_of(hooks.METHODS / f'{method}.yaml')}" in text
    assert re.search(rf"python run\.py (-m )?pruner=(\w+,)*{method}\b", text)
    assert f"]({method}.png)" in text
    assert (hooks.PAGES / f"{method}.png").stat().st_size < 70_000


def test_a_method_without_a_page_gets_a_plain_one(tmp_path, monkeypatch) -> None:
    (tmp_path / "mine.yaml").write_text("_target_: ivcp.pruners.fastv.FastV\n")
    monkeypatch.setattr(hooks, "METHODS", tmp_path)
    assert "::: ivcp.pruners.fastv.FastV" in hooks.plain_pages()["mine"]
    assert "methods/mine.md" in hooks.filled("methods/")
    assert "[`mine`](mine.md)" in hooks.table_of_methods(tmp_path, PAGES)


def test_a_page_can_be_that_of_several_methods(tmp_path) -> None:
    (tmp_path / "pair.md").write_text("---\npruners: [one, two]\n---\n# Two\n")
    assert hooks.pages_of_methods(tmp_path) == dict.fromkeys(("pair", "one", "two"), "pair.md")


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("docs/paper.md", "[x](../experiments/LOG.md)", "[x](experiments/LOG.md)"),
        ("docs/methods/ivc.md", "[x](../../CHANGELOG.md#a)", "[x](../CHANGELOG.md#a)"),
        ("docs/methods/ivc.md", "![x](ivc.png)", "![x](ivc.png)"),
        ("CONTRIBUTING.md", "[x](docs/methods/fastv.md)", "[x](methods/fastv.md)"),
        ("experiments/LOG.md", "[x](../README.md)", "[x](../index.md)"),
        ("docs/models.md", "[code](../ivcp/models/hub.py)", "code (`ivcp/models/hub.py`)"),
        ("docs/models.md", "[`hub.py`](../ivcp/models/hub.py)", "`ivcp/models/hub.py`"),
        ("docs/models.md", "[x](https://example.org/a.md)", "[x](https://example.org/a.md)"),
        ("docs/models.md", "[x](missing.md)", "[x](missing.md)"),
    ],
)  # fmt: skip
def test_links_lead_to_what_is_on_the_site(page: str, link: str, expected: str) -> None:
    assert hooks.relinked(f"See {link}.", page) == f"See {expected}."


def test_names_of_the_package_root_are_documented() -> None:
    source = "LATER = {'load': 'ivcp.notebook', 'load_runs': 'ivcp.results.load'}\n"
    assert hooks.imported_when_used(source) == ["ivcp.notebook.load", "ivcp.results.load.load_runs"]
    assert hooks.imported_when_used("") == []


def test_what_a_linked_page_links_to_joins_too() -> None:
    paths = hooks.outside(["docs/concepts/budgets.md"])
    assert {"experiments/compare/README.md", "experiments/ratios/README.md"} <= paths
    assert not any(path.startswith("docs/") or path.endswith(".csv") for path in paths)


def test_the_site_is_built_without_warnings_and_asks_no_other_host(tmp_path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//[^"]*', text), page
        assert not re.findall(r'<link[^>]*stylesheet[^>]* href="(?:https?:)?//[^"]*', text), page
    navigation = (tmp_path / "index.html").read_text(encoding="utf-8")
    pages = {PAGES.get(method, f"{method}.md") for method in METHODS}
    assert all(f'"methods/{page[:-3]}.html"' in navigation for page in pages)


def test_a_picture_is_drawn(tmp_path, capsys) -> None:
    loaded("pictures").main(["uniform", "--out", str(tmp_path)])
    assert capsys.readouterr().out.startswith("uniform.png: ")
    assert [path.name for path in tmp_path.iterdir()] == ["uniform.png"]
