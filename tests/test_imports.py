"""The import rule: parts import the core, never each other; each library has its home."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ivcp"
ALLOWED = {
    "core": set(),
    "pruners": {"core"},
    "models": {"core"},
    "datasets": {"core"},
    "metrics": {"core"},
    "judges": {"core"},
    "engine": {"core", "measure", "visualize"},  # budgets count FLOPs; a session draws
    "visualize": {"core"},
    "results": {"core"},
    "measure": set(),
    "evaluation": {"core", "engine", "measure", "results"},
    "bench": {"core", "datasets", "engine", "measure", "report", "results"},  # a scene, a plot
    "report": {"core", "results", "visualize"},
    "integrations": {"core", "engine", "models"},
    "cli": {"bench", "core", "evaluation", "models", "report", "results"},
    "notebook": {"core", "engine", "models"},
    "testing": {"core", "models"},  # nothing of the package imports it
    "wandb": {"core", "evaluation"},  # commands that follow a run; nothing imports them
}
HOMES = {
    "transformers": {"models", "engine", "testing"},  # testing makes models from config
    "lightning": {"evaluation"},
    "lmms_eval": {"integrations"},
    "vllm": {"integrations"},
    "wandb": {"wandb"},  # a run logs through Lightning's logger; only the commands need more
    "wandb_workspaces": {"wandb"},
    "hydra": {"cli"},
    "omegaconf": {"cli"},
}


def imported(path: Path) -> set[str]:
    """Dotted names of everything that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = [
    path
    for part in ALLOWED
    for path in (ROOT / f"{part}.py", *sorted((ROOT / part).rglob("*.py")))
    if path.exists()
]


def test_every_part_has_a_rule() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert folders | {path.stem for path in ROOT.glob("[!_]*.py")} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported(path):
        library, *rest = name.split(".")
        assert part in HOMES.get(library, {part}), f"{library} belongs in {HOMES.get(library)}"
        if library == "ivcp" and rest and rest[0] in ALLOWED:
            assert rest[0] == part or rest[0] in ALLOWED[part], f"{part} imports {name}"
        if library == "ivcp" and part == "pruners":
            assert rest[0] != "pruners", "a pruner is one file"


def test_pruning_needs_torch_transformers_numpy_and_pillow_alone() -> None:
    """Everything else that pyproject.toml demands may be absent, but what transformers needs."""
    of_transformers = {"filelock", "jinja2", "numpy", "safetensors", "tokenizers", "transformers"}
    absent = required_packages() - of_transformers - {"torch", "pillow"}
    code = f"""
import sys
sys.modules.update(dict.fromkeys({sorted(absent)}))
import ivcp
from ivcp.models import known_families
known_families()
model, processor = ivcp.load()
with ivcp.pruned(model, ivcp.IVCPrune(keep_ratio=0.5)):
    print("pruned")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "pruned\n", done.stderr
    assert {"lightning", "hydra", "pandas", "pydantic", "scipy"} <= absent


def required_packages() -> set[str]:
    """Names of the packages that pyproject.toml demands."""
    text = (ROOT.parent / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    names = re.findall(r'"([\w-]+)', block)
    return {name.replace("hydra-core", "hydra").replace("-", "_") for name in names}
