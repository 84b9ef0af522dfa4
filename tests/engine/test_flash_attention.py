"""The flash path end to end on a CPU: a stand-in for flash-attn gives the same answers as SDPA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_invariants import PRUNERS

from ivcp.testing import SMALL

ROOT = Path(__file__).parents[2]
STANDINS = ROOT / "tests" / "standins"
EVERY_METHOD = ("qwen25vl", "llava15")
"""Families on which every method runs; on the others, `FEW` do."""
FEW = ("ivcp", "fastv", "sparsevlm")
MASKED = [f for f in SMALL if not SMALL[f].family.bidirectional]
CASES = [(f, name) for f in MASKED for name in (PRUNERS if f in EVERY_METHOD else FEW)]
MROPE = ("qwen2vl", "qwen25vl", "qwen3vl", "qwen35", "glm4v")
"""Families whose tower attends to images of different sizes behind each other."""


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """By case: tokens, kept indices and calls with SDPA, and with the stand-in."""
    folders = (STANDINS, ROOT / "tests", ROOT / "tests" / "engine", ROOT)
    cases = [" ".join(case) for case in CASES]
    done = subprocess.run(
        [sys.executable, str(STANDINS / "flash_answers.py"), *cases],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", ["batch", "single"])
@pytest.mark.parametrize(("family", "name"), CASES)
def test_tokens_are_those_of_sdpa(family: str, name: str, kind: str, answers: Any) -> None:
    sdpa, flash = answers[f"{family} {name} {kind}"]
    assert flash["tokens"] == sdpa["tokens"]
    assert flash["kept"] == sdpa["kept"]
    assert sdpa["calls"] == []
    expected = ["flash_attn_func"] if kind == "single" or family not in MROPE else []
    expected += ["flash_attn_varlen_func"] if kind == "batch" or family in MROPE else []
    assert flash["calls"] == expected
