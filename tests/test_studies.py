"""The scripts of the studies: the first run of each sweep composes, and its folder is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.utils import instantiate

from experiments.analysis.samples import SWEEPS
from ivcp.cli.composing import composed

ROOT = Path(__file__).parents[1]
SCRIPTS = [ROOT / "experiments/baseline.sh", *sorted(ROOT.glob("experiments/*/run.sh"))]
SCALE = {  # the settings of experiments/README.md
    "BOXES": "refcoco_testA", "VALIDATION": "dataset=refcoco_val", "QUESTIONS": "pope",
    "MIDDLE": "16", "LATE": "22", "LAYERS": "range(2,28,2)",
}  # fmt: skip
PYTHON = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
"""


def sweeps(script: Path, model: str, folder: Path, **environment: str) -> dict[str, list[str]]:
    """The overrides of each sweep of a script, by its folder."""
    python, calls = folder / "python", folder / "calls"
    python.write_text(PYTHON)
    python.chmod(0o755)
    environment |= {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls)}
    subprocess.run(["bash", script, model], env=os.environ | environment, check=True, cwd=ROOT)
    found = [json.loads(line) for line in calls.read_text().splitlines()]
    assert all(call[:2] == ["run.py", "-m"] for call in found)
    return {call[-1].partition("=")[2]: call[2:-1] for call in found}


@pytest.mark.parametrize(("model", "settings"), [("tiny_llava", {}), ("qwen25vl", SCALE)])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.parent.name)
def test_sweeps_compose_and_their_folders_are_read(script, model, settings, tmp_path) -> None:
    study = "unpruned" if script.name == "baseline.sh" else script.parent.name
    found = sweeps(script, model, tmp_path, **settings)
    root = f"outputs/studies/{model}/{study}"
    assert set(found) - {f"{root}/gaps"} == {f"{root}/{name}" for name in SWEEPS[study]}
    for overrides in found.values():
        chosen = {}
        for override in OverridesParser.create().parse_overrides(overrides):
            if override.is_sweep_override():
                one_of_all = isinstance(override.value(), Glob)
                value = "fastv" if one_of_all else next(override.sweep_string_iterator())
            else:
                value = override.get_value_element_as_str()
            chosen[override.get_key_element()] = value
        cfg = composed(*(f"{key}={value}" for key, value in chosen.items()))
        assert instantiate(cfg.pruner)
        boxes = settings.get("BOXES", "shapes")
        questions = settings.get("QUESTIONS", "shapes_pope")
        assert chosen.get("dataset", "shapes") in (boxes, questions, "refcoco_val")
