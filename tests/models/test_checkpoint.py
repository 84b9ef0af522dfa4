"""Checkpoints that cannot be used are refused in one sentence, before weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ivcp.core.errors import UserError
from ivcp.models.internvl import InternVL
from ivcp.models.qwen25vl import PACKAGED, Qwen25VL

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 8000000\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the packaged checkpoint."""
    return Path(shutil.copytree(PACKAGED, tmp_path / "weights"))


def load(folder: Path) -> Any:
    return Qwen25VL(path=str(folder), dtype="float32").load()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_git_lfs_pointer(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(UserError, match=rf"{name} is a git-lfs pointer .* git lfs pull"):
        load(folder)


@pytest.mark.parametrize("size", [0, 5, 200_000])
def test_torn_weights(folder: Path, size: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(UserError, match=r"could not be loaded \(.*\); .* download it again"):
        load(folder)


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading weights is an error of the test."""
    monkeypatch.setattr(Qwen25VL, "_model_class", lambda self: pytest.fail("weights were loaded"))


def test_a_chat_template_beside_the_tokenizer(folder: Path) -> None:
    """Processors of transformers 4 wrote chat_template.json, which tokenizers do not read."""
    _, expected = load(folder)
    template = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    _, processor = load(folder)
    assert processor.tokenizer.chat_template == expected.tokenizer.chat_template


@pytest.mark.parametrize("text", [None, "{}", "[]", "{torn"])
@pytest.mark.usefixtures("no_weights")
def test_no_chat_template(folder: Path, text: str | None) -> None:
    (folder / "chat_template.jinja").unlink()
    if text is not None:
        (folder / "chat_template.json").write_text(text)
    with pytest.raises(UserError, match=r"has no chat template .*: copy it from the checkpoint"):
        load(folder)


@pytest.mark.usefixtures("no_weights")
def test_no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="has no tokenizer: copy the tokenizer's files"):
        load(folder)


def test_an_original_checkpoint_is_converted_not_executed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"}
    config |= {"model_type": "internvl_chat", "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    family = InternVL(path=str(folder))
    with pytest.raises(UserError, match=r"internvl_chat.* must be converted first") as caught:
        family.depth()
    assert "trust_remote_code" not in str(caught.value)


def test_settings_of_another_type() -> None:
    for fields, message in (
        ({"max_pixels": "1280*28*28"}, r"^model.max_pixels must be a whole number or null; got '1"),
        ({"min_pixels": 1.5}, r"^model.min_pixels must be a whole number or null; got 1.5"),
        ({"dtype": "fp8"}, r"^model.dtype must be float32 or bfloat16 or .* got 'fp8'"),
        ({"path": 3}, r"^model.path must be a text or null; got 3"),
    ):
        with pytest.raises(UserError, match=message):
            Qwen25VL(**fields)  # type: ignore[arg-type]
    assert Qwen25VL(path=PACKAGED).path == str(PACKAGED)  # type: ignore[arg-type]
