"""The wheel, in a new environment and an empty folder, with a method of another package."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = {
    "pyproject.toml": """
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"

        [project]
        name = "strided"
        version = "1.0"
        dependencies = ["ivcp"]

        [project.entry-points."ivcp.pruners"]
        strided = "strided:Strided"
        """,
    "strided.py": '''
        """Every so many tokens."""

        from dataclasses import dataclass

        import torch
        from torch import Tensor

        from ivcp.core.pruner import ScorePruner
        from ivcp.core.view import View


        @dataclass(frozen=True, kw_only=True)
        class Strided(ScorePruner):
            """Keep every `step`th token first."""

            step: int = 2

            def score(self, view: View) -> Tensor:
                return -(torch.arange(len(view.index)) % self.step).float()
        ''',
}


def call(*words: object, where: Path) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([*map(str, words)], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The programs of an environment that has the wheel and the other package.

    Libraries are those of this environment: the wheel's own requirements are checked against them.
    """
    work = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", work, where=ROOT)
    (work / "strided").mkdir()
    for name, text in PACKAGE.items():
        (work / "strided" / name).write_text(textwrap.dedent(text))
    call(sys.executable, "-m", "venv", "--without-pip", "env", where=work)
    python = work / "env" / "bin" / "python"
    purelib = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(call(python, "-c", purelib, where=work).strip())
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"]
    call(
        *pip,
        "--no-build-isolation",
        "--no-index",
        next(work.glob("*.whl")),
        "./strided",
        where=work,
    )
    call(sys.executable, "-m", "pip", "--python", python, "check", where=work)
    return python.parent


def test_it_runs_reports_and_lists(installed, tmp_path) -> None:
    where = call(installed / "python", "-c", "import ivcp; print(ivcp.__file__)", where=tmp_path)
    assert Path(where).is_relative_to(installed.parent)
    call(
        installed / "ivcp", "run", "-m", "model=tiny", "pruner=ivcp,strided", "ratio=0.3",
        "limit=2", "workers=0", "generation.max_new_tokens=3", where=tmp_path,
    )  # fmt: skip
    call(installed / "ivcp", "report", "multirun", "--tables", where=tmp_path)
    lines = (tmp_path / "report" / "table.csv").read_text().splitlines()
    assert [line.split(",")[3] for line in lines] == ["pruner", "ivcp", "strided"]
    call(installed / "ivcp", "view", "multirun", "--no-browser", where=tmp_path)
    assert "window.DataTable=" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "strided:Strided" in call(installed / "ivcp", "run", "--help", where=tmp_path)
