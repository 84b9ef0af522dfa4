"""Workflows and hooks: they are read, and name commands and versions that exist."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
FILES = [*ROOT.glob(".github/**/*.yml"), ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml"]


def test_their_commands_and_versions_exist() -> None:
    texts = [path.read_text() for path in FILES]
    assert all(isinstance(yaml.safe_load(text), dict) for text in texts)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = set(re.findall(r"run: make (\w+)", "".join(texts)))
    assert commands == {"docs", "lint", "test"} <= targets
    ruffs = set(re.findall(r"\[(ruff==[\d.]+)\]", "".join(texts)))
    assert len(ruffs) == 1
    assert ruffs < set((ROOT / "constraints.txt").read_text().split())
