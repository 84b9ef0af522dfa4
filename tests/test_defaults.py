"""A yaml states every field of its class, with the class's own default unless it is a preset.

A preset of a method is a yaml with a name of its own: `fastervlm.yaml` is a VisPruner.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

CONF = Path(__file__).parents[1] / "conf"
FREE = {"pruner": {"keep_ratio"}, "model": {"path", "dtype", "min_pixels", "max_pixels"}}
FILES = [path for group in FREE for path in sorted((CONF / group).glob("*.yaml"))]


def module_of(kind: type) -> str:
    """The method's own name: that of the file of its class."""
    return kind.__module__.rpartition(".")[2]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_yaml_and_class_agree(path: Path) -> None:
    config = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    base = config.pop("defaults", None)
    config.pop("_convert_", None)
    inner = [key for part in base or () if isinstance(part, dict) for key in part]
    wraps = [key.partition("@")[2].split(".")[0] for key in inner]
    if wraps:  # which method it wraps is a choice, like that of the method itself
        base, config = None, {**config, **dict.fromkeys(wraps)}
    if base:
        parent = OmegaConf.load(path.parent / f"{base[0]}.yaml")
        config = {**OmegaConf.to_container(parent, resolve=False), **config}
    kind = get_class(config.pop("_target_"))
    fields = {field.name: field for field in dataclasses.fields(kind)}
    assert set(config) == set(fields)
    if base or (path.parent.name == "pruner" and path.stem != module_of(kind)):
        return  # a variant or a preset differs where it says so
    for name in set(fields) - FREE[path.parent.name] - set(wraps):
        default = fields[name].default
        assert config[name] == (list(default) if isinstance(default, tuple) else default), name


@pytest.mark.parametrize("path", sorted((CONF / "pruner").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_pruner_takes_the_top_level_ratio(path: Path) -> None:
    config = OmegaConf.load(path)
    assert path.with_stem(module_of(get_class(config._target_))).exists(), "a preset's method"
    raw = OmegaConf.to_container(config, resolve=False)["keep_ratio"]
    assert raw == (1.0 if path.stem == "none" else "${ratio}")


@pytest.mark.parametrize("path", sorted((CONF / "tuned").glob("*.yaml")), ids=lambda p: p.stem)
def test_tuned_files_name_a_pair_that_exists(path: Path) -> None:
    pruner, _, model = path.stem.partition("__")
    assert (CONF / "pruner" / f"{pruner}.yaml").exists()
    model = model.removesuffix("_published")  # chosen by hand, beside the pair's own values
    assert (CONF / "model" / f"{model}.yaml").exists()
    known = OmegaConf.load(CONF / "pruner" / f"{pruner}.yaml")
    assert set(OmegaConf.load(path).pruner) <= set(known)
