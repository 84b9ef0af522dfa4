"""Every notebook runs from top to bottom; its committed outputs are whole, and hold no error."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHOWN = ("_repr_html_", "_repr_png_", "__repr__")
"""What a notebook calls on the last expression of a cell."""
OF_A_MACHINE = re.compile(r"/(home|root|tmp|usr|Users|work)/|0x[0-9a-f]{8}")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run_cell(source: str, name: str, names: dict[str, Any]) -> None:
    """Run a cell, and show its last expression, as a notebook does."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), name, "eval"), names)
        for method in SHOWN:
            getattr(value, method, str)()


@each_notebook
def test_a_notebook_runs(path: Path, tmp_path, monkeypatch) -> None:
    from matplotlib import pyplot as plt

    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    main = ModuleType("__main__")  # where a notebook's classes are; a dataclass looks there
    monkeypatch.setitem(sys.modules, "__main__", main)
    for number, cell in enumerate(code_cells(path), 1):
        run_cell("".join(cell["source"]), f"{path.name}, code cell {number}", vars(main))
        plt.close("all")


@each_notebook
def test_its_outputs_are_whole_and_hold_no_error(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {"execute_result", "stream"} <= {output["output_type"] for output in outputs}
    assert "error" not in {output["output_type"] for output in outputs}
    assert "stderr" not in {output.get("name") for output in outputs}
    for output in outputs:
        data = output.get("data", {}).items()
        readable = [text for kind, text in data if not kind.startswith("image/")]
        assert not OF_A_MACHINE.search(json.dumps([output.get("text"), *readable]))
    assert path.stat().st_size < 400_000


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("source", ["1 / 0", "x = 1\n[0][x]", "Shown()"])
def test_a_cell_that_fails_is_noticed(source: str) -> None:
    class Shown:
        def _repr_png_(self) -> bytes:
            raise ArithmeticError

    with pytest.raises((ArithmeticError, LookupError)):
        run_cell(source, "cell", {"Shown": Shown})
