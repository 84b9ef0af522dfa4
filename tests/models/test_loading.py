"""From a folder of weights to a table row, for every family, through the command line's script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import run_py
from expected import EXPECTED
from hydra.utils import get_class
from omegaconf import OmegaConf
from vocabulary import byte_tokenizer

from ivcp.testing import SMALL

ROOT = Path(__file__).parents[2]


def classes() -> dict[type, str]:
    """Family classes and their names in `ivcp.testing`."""
    return {small.family: name for name, small in SMALL.items()}


def options() -> dict[str, type]:
    """Options of `model=` that name a class of their own, but for the packaged ones."""
    files = sorted((ROOT / "conf" / "model").glob("*.yaml"))
    configs = {path.stem: OmegaConf.load(path) for path in files}
    return {
        name: get_class(config._target_) for name, config in configs.items()
        if "_target_" in config and config.path is not None
    }  # fmt: skip


def weights(family: str, folder: Path) -> Path:
    """A folder with a random model, its tokenizer and its image processor."""
    tokenizer, model = byte_tokenizer(family), SMALL[family].model()
    model.resize_token_embeddings(len(tokenizer))
    for key, token in EXPECTED[family].ids.items():
        setattr(model.config, key, tokenizer.convert_tokens_to_ids(token))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    published = json.dumps(EXPECTED[family].preprocessor)
    (folder / "preprocessor_config.json").write_text(published)
    return folder


@pytest.mark.parametrize("name", [*options(), "llavanext_mistral"])
def test_a_folder_is_evaluated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    kind = options()[name.removesuffix("_mistral")]
    small = name if name in SMALL else classes()[kind]
    folder = weights(small, tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    words = [
        f"model={name}", f"model.path={folder}", "model.dtype=float32", "pruner=ivcp", "ratio=0.4",
        "pruner.layer=2", "trainer=cpu", "logger=none", "workers=0", "limit=2", "batch_size=2",
        "pictures=1", "generation.max_new_tokens=3",
    ]  # fmt: skip
    assert run_py(*words) == 0, capsys.readouterr()
    (path,) = tmp_path.glob("outputs/*/*/metrics.json")
    report = json.loads(path.read_text())
    assert report["run"]["failed_samples"] == 0
    assert set(report["run"]["notes"]) >= set(kind().remarks("grounding"))
    lines = [json.loads(line) for line in path.with_name("predictions.jsonl").open()]
    for line in lines:
        assert line["kept_tokens"] == round(0.4 * line["visual_tokens"])
        assert line["prefill_flops"] < line["prefill_flops_unpruned"]
    assert len(list(path.parent.glob("pictures/*.png"))) == 1


def test_every_family_is_an_option() -> None:
    assert set(options().values()) == set(classes())
