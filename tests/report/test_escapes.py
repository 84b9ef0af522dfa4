"""Hostile texts in every format: they are data, never markup, on screen and in every file."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ivcp.core.printable import printable
from ivcp.report.__main__ import main
from ivcp.report.escapes import csv_text, latex, markdown, markdown_line
from ivcp.report.page import own_scripts

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='x", "]]>",
    "</style><b>x", "&lt;b&gt;", "{{ 7 * 7 }}", "{% raw %}", "[red]x[/red]", "[/]", ":smile:",
    "[link=http://evil]x[/link]", "\x1b[31mRED\x1b[0m\x1b]0;title\x07", "\x9b31m", "\x00nul",
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "a|b\\|c", "a\nb\n## head",
    "`code` *b* _i_ [l](javascript:x)", "50 % & $x$ # _ { } ~ ^ \\ \\input{/etc/passwd}",
    "\\write18{id}", "^^5cinput", "é ü ß の 🎯 ≥ · π", "\u202eevil", "\u2028x", "?",
    "a" * 5000, "e" + "\u0301" * 300, "%s %d {0}", "''`` \"q\" <<>>", "../../x",
)  # fmt: skip
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2028]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mRED\x1b[0m\x1b]0;title\x07!", "RED!"),
        ("a\tb\r\nc\u2028d", "a b  c d"),
        ("\x00\u202e\ud800", "\ufffd" * 3),
        ("👩\u200d🔬 é", "👩\u200d🔬 é"),
        ("a" * 500, "a" * 399 + "…"),
    ],
)
def test_readers_see_one_line_without_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_no_text_is_a_formula(text: str) -> None:
    assert csv_text(text).startswith("'")
    assert csv_text(f"a{text}").startswith("a")


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b\\|c", r"a\|b\\\|c"),
        ("<b> &lt; a < b & c", "&lt;b> &amp;lt; a < b & c"),
        ("<0.001 snake_case [1, 2]", "<0.001 snake_case [1, 2]"),
        ("*a* _i_ `c` [l](x)", r"\*a\* \_i\_ \`c\` [l\](x)"),
        (
            "$x$ ~~a~~ http://b www.c me@d.org acc@0.5",
            (r"\$x\$ \~\~a\~\~ http\://b www\.c me\@d.org acc@0.5"),
        ),
    ],
)
def test_markdown_escapes_markup_alone(text: str, escaped: str) -> None:
    assert markdown(text) == escaped


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- a", r"\- a"), ("1. a", r"1\. a"), ("    + a", r"\+ a"), ("> a", r"\> a"),
        ("===", r"\==="), ("# a", r"\# a"), ("5 runs", "5 runs"),
    ],
)  # fmt: skip
def test_a_line_of_markdown_begins_nothing(text: str, line: str) -> None:
    assert markdown_line(text) == line


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("Ünïcödé ŷ ç", r"\"{U}n\"{i}c\"{o}d\'{e} \^{y} \c{c}"),
        ("ﬁ ½ ≥ μ の", r"fi 1?2 $\geq$ $\mu$ ?"),
        ("e" + "\u0301" * 300, r"\'{e}"),
        ("\u0301&\u0301", r"\&"),
    ],
)
def test_latex_prints_what_it_can(text: str, escaped: str) -> None:
    assert latex(text) == escaped


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_is_balanced_and_has_no_command_of_others(text: str) -> None:
    escaped = latex(text)
    assert escaped.isascii()
    assert not {"input", "write"} & set(re.findall(r"\\([a-z]+)", escaped))
    bare = re.sub(r"\\[{}]", "", escaped)
    assert bare.count("{") == bare.count("}")


def test_a_hostile_report_is_text(
    make_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, text in enumerate(HOSTILE):
        make_run(
            f"runs/{number:02}",
            pruner=f"{text}{number % 2}",
            model=HOSTILE[-number],
            value=0.5,
            dataset="d" if number % 9 else text,
            primary_metric="m" if number % 9 else text,
            metric={"metric": text},
            device=text,
            notes=[text],
            config={"pruner": {text: text}, "model": {"path": text}},
            overrides=[text],
            tasks={text: {"name": text}} if number % 2 else {},
            values={f"{text}/{text}": 0.5},
        )
    (tmp_path / "runs/\x1b[31m<b>").mkdir()
    (tmp_path / "runs/\x1b[31m<b>/metrics.json").write_text("{")
    out = tmp_path / "out"
    assert main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    printed = "".join(capsys.readouterr())
    assert not CONTROL.findall(printed)
    for shown in ("[red]x[/red]", "[/]", ":smile:", "<script>alert(1)</script>", "{{ 7 * 7 }}"):
        assert shown in printed
    files = [(out / name).open(newline="") for name in ("table.csv", "groups.csv")]
    cells = [cell for file in files for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if re.match(r"[=+@\t\r-]", cell) and not is_number(cell)]
    for name, block in (("table.md", 1), ("groups.md", 1)):
        text = (out / name).read_text()
        lines = text.split("\n\n")[block].splitlines()
        assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) == 1
        assert "<script" not in text
    tex = (out / "table.tex").read_text()
    assert tex.isascii()
    bare = re.sub(r"\\[{}\\]", "", tex)
    assert bare.count("{") == bare.count("}")
    assert not {"input", "write"} & set(re.findall(r"\\([a-z]+)", tex))
    check_tex(out / "table.tex")
    page = (out / "report.html").read_bytes().decode()
    for code in own_scripts():
        page = page.replace(f"<script>{code}</script>", "")
    assert not CONTROL.findall(page)
    data = r"""type="(?:text/plain|application/json)" id="[a-z0-9-]+">"""
    assert not re.findall(f"<(?:script(?! {data})|img src=x|b>x|style><b)", page)
    assert "{{ 7 * 7 }}" in page


def check_tex(path: Path) -> None:
    """Compile a table where LaTeX is installed."""
    if shutil.which("pdflatex") is None:
        return
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    path.with_name("all.tex").write_text(f"{head}\\input{{{path.stem}}}\\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def is_number(text: str) -> bool:
    return re.fullmatch(r"-?[\d.]+(e[+-]\d+)?", text) is not None
