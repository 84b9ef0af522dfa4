from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ivcp.results.provenance import git_state


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "code.py").write_text("a = 1\n")
    name = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    for words in (["init", "-q"], ["add", "code.py"], [*name, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    return tmp_path


def test_a_report_inside_a_checkout_does_not_make_it_dirty(checkout: Path) -> None:
    (checkout / "report").mkdir()
    (checkout / "report" / "table.csv").write_text("a\n")
    state = git_state(checkout)
    assert state is not None
    assert (len(state.commit), state.dirty) == (40, False)
    (checkout / "code.py").write_text("a = 2\n")
    changed = git_state(checkout)
    assert changed is not None
    assert changed.dirty


def test_outside_of_a_repository_there_is_no_state(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
