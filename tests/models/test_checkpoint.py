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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the packaged checkpoint."""
    return Path(shutil.copytree(PACKAGED, tmp_path / "weights"))


def load(folder: Path) -> Any:
    return Qwen25VL(path=str(folder), dtype="float32").load()


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


@pytest.mark.parametrize(
    ("template", "message"),
    [("{% for", r"is damaged \(.*\)"), ("{{ a.b }}", r"is damaged \(.*\)"),
     ("{{ messages[0].role }}", "gives 0 places to one image")],
)  # fmt: skip
@pytest.mark.usefixtures("no_weights")
def test_a_chat_template_of_another_kind(folder: Path, template: str, message: str) -> None:
    """Such as the one of a model that reads text alone."""
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=f"The chat template .* {message}: copy it from"):
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
        ({"attention": "flash"}, r"^model.attention must be sdpa or eager or .*; got 'flash'"),
    ):
        with pytest.raises(UserError, match=message):
            Qwen25VL(**fields)  # type: ignore[arg-type]
    assert Qwen25VL(path=PACKAGED).path == str(PACKAGED)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"min_pixels": 0}, "min_pixels must be at least 1; got 0"),
     ({"max_pixels": -5}, "max_pixels must be at least 1; got -5"),
     ({"min_pixels": 9, "max_pixels": 8}, "min_pixels must be at most model.max_pixels; got 9 and"),
     ({"max_pixels": 63}, "max_pixels must be at least 256, the 16 x 16 pixels of one"),
     ({"max_pixels": 300}, "min_pixels must be at most .*; got 1024 and 300")],
)  # fmt: skip
@pytest.mark.usefixtures("no_weights")
def test_pixel_limits_that_no_image_can_meet(fields: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=rf"^model\.{message}"):
        Qwen25VL(path=None, **fields).load()  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["lab/a model", "lab//model", "{file}"])
def test_a_path_that_is_no_hub_id(tmp_path: Path, path: str) -> None:
    (tmp_path / "model.safetensors").touch()
    path = path.format(file=tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"must be an existing folder .* or a hub id; got .*which"):
        Qwen25VL(path=path).depth()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"text_config": 3}, "could not be loaded"), ([], "must hold settings by name"),
     ({"vision_config": {"depth": "many"}}, r"could not be loaded \(.*expected int, got str")],
)  # fmt: skip
def test_a_damaged_configuration(folder: Path, settings: Any, message: str) -> None:
    path = folder / "config.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, **settings} if settings else settings))
    with pytest.raises(UserError, match=message):
        Qwen25VL(path=str(folder)).depth()
