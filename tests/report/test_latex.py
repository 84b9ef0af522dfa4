"""LaTeX tables: structure and escapes, and the compiler's word where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ivcp.report.latex import to_latex
from ivcp.report.rows import make_rows
from ivcp.report.runs import find_runs

NASTY = "[a]\\b&%$#_{}~^<>|\"'·-x"


@pytest.fixture
def told(make_run: Any, tmp_path: Path) -> str:
    make_run("a", pruner="none", value=0.9)
    make_run("b", pruner=NASTY, value=0.8, layer=[2, 6])
    make_run("c", pruner="fastv", value=0.4, ratio=0.1)
    make_run("d", pruner="f\n\n&", value=0.4, dataset="x_1")
    return to_latex(make_rows(find_runs([tmp_path])[0]))


def test_every_block_is_a_table_of_equal_rows(told: str) -> None:
    blocks = re.findall(r"\\begin\{tabular\}\{(.*?)\}\n(.*?)\\end\{tabular\}", told, re.DOTALL)
    assert len(blocks) == 2
    for kinds, body in blocks:
        rows = [row for row in body.split("\n") if row.endswith(" \\\\")]
        assert {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(kinds)}
        assert body.startswith("\\toprule")
        assert body.rstrip().endswith("\\bottomrule")
    assert [body.count("\\midrule") for _, body in blocks] == [3, 1]  # below the head, at ratios
    assert "\\caption{x\\_1, tiny, acc@0.5 (\\%)}" in told
    assert "\n{[}a{]}\\textbackslash{}b\\&" in told
    assert "f \\& & 0.5 & -- & 40.0" in told
    assert "fastv & 0.1 & -- & 40.0 & 44.4 & $-$50.0 &" in told


def test_it_compiles(told: str, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    (tmp_path / "table.tex").write_text(told, encoding="utf-8")
    head = "\\documentclass{article}\\usepackage{booktabs,graphicx}"
    (tmp_path / "all.tex").write_text(f"{head}\\begin{{document}}\\input{{table}}\\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-draftmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
