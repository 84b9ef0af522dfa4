"""Hooks of the documentation site: pages of the repository, links to them, pages of methods.

Links in a page are those that work in the repository. A Markdown page or an image outside of docs/
that a page links to joins the site under its path in the repository; a link to any other file
becomes its path.
"""

from __future__ import annotations

import ast
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
ON_SITE = (".md", ".png", ".svg")
METHODS, PAGES = ROOT / "conf" / "pruner", ROOT / "docs" / "methods"
TABLE, LATER = "<!-- methods -->", "<!-- imported when used -->"
"""Marks in pages: the table of methods; names that the package root imports when they are used."""
PLAIN = """
# {name}

```bash
python run.py pruner={name} ratio=0.3
```

```yaml
--8<-- "conf/pruner/{name}.yaml"
```

::: {target}
"""
"""The page of a method that has no page of its own."""
HOME = {"README.md": "docs/index.md"}
"""What the site shows instead of a page of the repository."""


def on_config(config: MkDocsConfig) -> None:
    """Replace each folder in the navigation by its pages."""
    config.nav = filled(config.nav)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what pages link to outside of docs/, and a plain page of each method that has none."""
    from mkdocs.structure.files import File

    starts = [f"{DOCS}{page.src_uri}" for page in files.documentation_pages()]
    plain = {f"methods/{name}.md": text for name, text in plain_pages().items()}
    for path, text in plain.items():
        files.append(File.generated(config, path, content=text))
    for path in sorted(outside([*starts, *set(nav_paths(config.nav)) - set(plain)])):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill in the table of methods, and let links that leave docs/ lead to what joins the site."""
    generated = page.file.generated_by is not None
    if TABLE in markdown:
        markdown = markdown.replace(TABLE, table_of_methods(METHODS, pages_of_methods(PAGES)))
    if LATER in markdown:
        source = (ROOT / "ivcp" / "__init__.py").read_text(encoding="utf-8")
        names = "\n\n".join(f"::: {name}" for name in imported_when_used(source))
        markdown = markdown.replace(LATER, names)
    return relinked(markdown, page.file.src_uri if generated else f"{DOCS}{page.file.src_uri}")


def filled(nav: Any) -> Any:
    """The navigation with the pages of a folder, index.md first, where it names the folder."""
    if isinstance(nav, list):
        return [filled(item) for item in nav]
    if isinstance(nav, dict):
        return {title: filled(item) for title, item in nav.items()}
    if not nav.endswith("/"):
        return nav
    stems = {page.stem for page in (ROOT / DOCS / nav).glob("*.md")}
    if nav == "methods/":
        stems |= set(plain_pages())
    return [f"{nav}{stem}.md" for stem in sorted(stems, key=lambda stem: (stem != "index", stem))]


def nav_paths(nav: Any) -> Iterator[str]:
    """Repository paths of pages in the navigation that are not in docs/."""
    if isinstance(nav, list | dict):
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from nav_paths(item)
    elif not (ROOT / DOCS / nav).exists():
        yield nav


def pages_of_methods(pages: Path) -> dict[str, str]:
    """The page of each method: the one of its name, or one that lists it as `pruners:`."""
    named = {page.stem: page.name for page in pages.glob("*.md")}
    for page in pages.glob("*.md"):
        if listed := re.match(r"---\npruners: \[(.*)\]\n---\n", page.read_text(encoding="utf-8")):
            named |= dict.fromkeys(listed[1].split(", "), page.name)
    return named


def plain_pages() -> dict[str, str]:
    """What the configuration and the docstring say of each method that has no page, by its name."""
    named = pages_of_methods(PAGES)
    return {
        path.stem: PLAIN.format(name=path.stem, target=class_of(path))
        for path in METHODS.glob("*.yaml")
        if path.stem not in named
    }


def class_of(path: Path) -> str:
    """Dotted name of the class that a configuration names."""
    text = path.read_text(encoding="utf-8")
    (dotted,) = re.findall(r"^_target_: (\S+)$", text, re.MULTILINE)
    return str(dotted)


def table_of_methods(methods: Path, named: dict[str, str]) -> str:
    """A row for each method: its page, and the first sentence of its class's docstring."""
    rows = ["| `pruner=` | class | idea |", "|---|---|---|"]
    for path in sorted(methods.glob("*.yaml")):
        module, _, name = class_of(path).rpartition(".")
        source = (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        (kind,) = (
            node for node in ast.parse(source).body
            if isinstance(node, ast.ClassDef) and node.name == name
        )  # fmt: skip
        idea = (ast.get_docstring(kind) or "").partition("\n")[0]
        rows.append(
            f"| [`{path.stem}`]({named.get(path.stem, f'{path.stem}.md')}) | `{name}` | {idea} |"
        )
    return "\n".join(rows)


def imported_when_used(source: str) -> list[str]:
    """Dotted names in the dictionary `LATER`, name to module, of the source of a package root."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LATER":
            modules = ast.literal_eval(node.value)
            return [f"{module}.{name}" for name, module in modules.items()]
    return []


def outside(starts: Iterable[str]) -> set[str]:
    """Repository paths of what joins the site: linked from a page in docs/, or from such a page."""
    found: set[str] = set()
    waiting = list(starts)
    while waiting:
        path = waiting.pop()
        if not path.startswith(DOCS):
            found.add(path)
        if not path.endswith(".md"):
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        targets = {target(path, match[3]) for match in LINK.finditer(text)}
        waiting += [
            each for each in targets if joins(each) and not each.startswith(DOCS)
            if each not in found
        ]  # fmt: skip
    return found


def target(page: str, link: str) -> str:
    """Repository path that a relative link of a page leads to; empty for an address."""
    if "://" in link:
        return ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    return HOME.get(path, path)


def joins(path: str) -> bool:
    """Whether the site has or can have this path of the repository."""
    return path.endswith(ON_SITE) and (ROOT / path).is_file()


def relinked(markdown: str, page: str) -> str:
    """The text of a page with the links that the site needs.

    Args:
        markdown: The text.
        page: Repository path of the page.
    """

    def replaced(match: re.Match[str]) -> str:
        image, text, link, anchor = match.groups()
        path = target(page, link)
        if not (ROOT / path).exists() or not path:  # an address; mkdocs reports what is missing
            return match[0]
        if not joins(path):
            named = text.strip("`") in (path, Path(path).name)
            return f"`{path}`" if named else f"{text} (`{path}`)"
        start, end = posixpath.dirname(page.removeprefix(DOCS)), path.removeprefix(DOCS)
        return f"{image}[{text}]({os.path.relpath(end, start or '.')}{anchor or ''})"

    return LINK.sub(replaced, markdown)
