"""Files of weights that are torn, missing or of another model are named in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ivcp.core.errors import UserError
from ivcp.models.qwen25vl import PACKAGED, Qwen25VL

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 8000000\n"
WHOLE = load_file(PACKAGED / "model.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the packaged checkpoint."""
    return Path(shutil.copytree(PACKAGED, tmp_path / "weights"))


def load(folder: Path) -> Any:
    return Qwen25VL(path=str(folder), dtype="float32").load()


def write(folder: Path, kind: str, shards: int) -> list[Path]:
    """Store the packaged weights anew, as `.bin` or `.safetensors`, in one file or in shards."""
    (folder / "model.safetensors").unlink()
    stem, suffix = ("pytorch_model", ".bin") if kind == "bin" else ("model", ".safetensors")
    owners, paths = {}, []
    for number in range(shards):
        middle = f"-{number + 1:05}-of-{shards:05}" if shards > 1 else ""
        paths.append(folder / f"{stem}{middle}{suffix}")
        part = {name: WHOLE[name] for name in sorted(WHOLE)[number::shards]}
        owners |= dict.fromkeys(part, paths[-1].name)
        torch.save(part, paths[-1]) if kind == "bin" else save_file(part, paths[-1])
    if shards > 1:
        index = folder / f"{stem}{suffix}.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": owners}))
    return paths


stored = pytest.mark.parametrize(
    ("kind", "shards"), [("bin", 1), ("bin", 2), ("safetensors", 1), ("safetensors", 2)]
)


@stored
def test_whole_weights_load(folder: Path, kind: str, shards: int) -> None:
    write(folder, kind, shards)
    (model, _), (expected, _) = load(folder), load(PACKAGED)
    tensors = expected.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())


@stored
@pytest.mark.parametrize("size", [0, 5, 200_000])
def test_torn_weights(folder: Path, kind: str, shards: int, size: int) -> None:
    path = write(folder, kind, shards)[-1]
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=rf"{path.name} is torn, .* download it again"):
        load(folder)


@stored
def test_a_shard_that_is_missing(folder: Path, kind: str, shards: int) -> None:
    path = write(folder, kind, shards)[-1]
    path.unlink()
    with pytest.raises(UserError, match=rf"could not be loaded \(.*{path.name}.*\); .* again"):
        load(folder)


@stored
def test_a_git_lfs_pointer_for_weights(folder: Path, kind: str, shards: int) -> None:
    path = write(folder, kind, shards)[-1]
    path.write_text(POINTER)
    with pytest.raises(UserError, match=rf"{path.name} is a git-lfs pointer .* git lfs pull"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_git_lfs_pointer_for_a_small_file(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(UserError, match=rf"{name} is a git-lfs pointer .* git lfs pull"):
        load(folder)


def test_a_file_that_holds_code_is_not_run(folder: Path) -> None:
    torch.save(Path, write(folder, "bin", 1)[0])
    with pytest.raises(UserError, match=r"holds something else than weights") as caught:
        load(folder)
    assert "weights_only" not in str(caught.value)  # which would run it


def test_an_index_without_its_table(folder: Path) -> None:
    write(folder, "safetensors", 2)
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match=r"a file lacks the entry 'weight_map'"):
        load(folder)


def test_missing_parameters_are_not_left_at_random(folder: Path) -> None:
    absent, narrow = "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight"
    some = {name: tensor for name, tensor in WHOLE.items() if name != absent}
    save_file({**some, narrow: torch.zeros(3)}, folder / "model.safetensors")
    message = r"1 are missing \(.*down_proj\.weight\) and 1 have another shape \(.*up_proj\.weight"
    with pytest.raises(UserError, match=message):
        load(folder)


def test_an_adapter_without_its_model(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    with pytest.raises(UserError, match="holds an adapter without its model: merge the two"):
        load(folder)
