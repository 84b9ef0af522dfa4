"""Model arguments, without lmms-eval: values are as its parser hands them over."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from ivcp.core.errors import UserError
from ivcp.core.family import ModelFamily
from ivcp.core.pruner import Pruner
from ivcp.integrations import choices
from ivcp.integrations.choices import stems
from ivcp.integrations.lmms.arguments import Arguments, RequestOptions, read, write
from ivcp.models.qwen25vl import Qwen25VL
from ivcp.pruners.ivcp import IVCPrune
from ivcp.pruners.none import NoPruning
from ivcp.pruners.sparsevlm import SparseVLM

CONF = Path(__file__).parents[2] / "conf"
LEAST = {"model": "qwen25vl", "pruner": "ivcp"}


def modules(group: str) -> set[str]:
    paths = (CONF / group).glob("*.yaml")
    targets = {OmegaConf.load(path).get("_target_") for path in paths}
    return {get_class(target).__module__.rpartition(".")[2] for target in targets - {None}}


@pytest.mark.parametrize(
    ("group", "folder", "base"),
    [("pruner", "pruners", Pruner), ("model", "models", ModelFamily)],
)
def test_every_configured_class_goes_by_the_name_of_its_module(group, folder, base) -> None:
    assert set(stems(folder, base)) == modules(group)


def test_a_class_that_a_module_only_imports_is_not_its_own(monkeypatch) -> None:
    monkeypatch.setattr("ivcp.pruners.none.Other", IVCPrune, raising=False)
    assert stems("pruners", Pruner)["none"] is NoPruning


def test_what_is_not_named_has_the_default_of_its_class() -> None:
    given = Arguments.parse(LEAST)
    assert given == Arguments(model=Qwen25VL(), pruner=IVCPrune(), requests=RequestOptions())
    assert "keep_ratio=0.5,layer=auto," in str(given)


def test_fields_find_their_part() -> None:
    given = Arguments.parse(
        {**LEAST, "path": "null", "min_pixels": 3136, "keep_ratio": 0.3, "pruner.layer": 4,
         "foreground_share": "None", "model.dtype": "float32", "batch_size": "8"}
    )  # fmt: skip
    assert given.model == Qwen25VL(path=None, min_pixels=3136, dtype="float32")
    assert given.pruner == IVCPrune(keep_ratio=0.3, layer=4, foreground_share=None)
    assert given.requests == RequestOptions(batch_size=8)


def test_lists_numbers_and_quotes_are_read_as_their_field_is() -> None:
    given = Arguments.parse(
        {"model": "qwen25vl", "path": '"2025"', "pruner": "sparsevlm", "layers": "[2, 4,6]",
         "keep_ratio": 1, "recycle": False}
    )  # fmt: skip
    assert given.model.path == "2025"
    assert given.pruner == SparseVLM(layers=(2, 4, 6), keep_ratio=1.0, recycle=False)
    assert isinstance(given.pruner.keep_ratio, float)
    assert Arguments.parse({**LEAST, "path": "'a,b'"}).model.path == "a,b"


@pytest.mark.parametrize("text", ["a,b", "12", "1e5", "true", "none", "inf", "", "a b", "[x]"])
def test_text_that_would_be_read_as_something_else_is_quoted(text) -> None:
    assert write(text) == f'"{text}"'


@pytest.mark.parametrize("text", ["Qwen/Qwen2.5-VL-7B-Instruct", "/a/b_c", "~/x.y", "bfloat16"])
def test_plain_text_is_not(text) -> None:
    assert write(text) == text


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"pruner": "ivcp"}, "must name a model: model= one of deepseekvl,"),
        ({"model": "qwen25vl"}, "must name a pruner: pruner= one of .*fastv,"),
        ({**LEAST, "model": "qwen25"}, "qwen25vl, qwen2vl, .*qwen3vl.*; got 'qwen25'"),
        ({**LEAST, "model": "hub"}, "got 'hub'"),
        ({**LEAST, "pruner": "../none"}, "uniform.*; got '../none'"),
        ({**LEAST, "ratio": 0.3}, "keep_ratio, layer, .*batch_size, max_new_tokens; got 'ratio'"),
        ({**LEAST, "model.keep_ratio": 0.3}, "got 'model.keep_ratio'"),
        ({**LEAST, "layer": 4, "pruner.layer": 5}, "pruner.layer is given twice"),
        ({**LEAST, "layer": 4.5}, "layer must be a whole number or auto; got 4.5"),
        ({**LEAST, "layer": True}, "layer must be a whole number or auto; got True"),
        ({**LEAST, "keep_ratio": "half"}, "keep_ratio must be a number; got 'half'"),
        ({**LEAST, "keep_ratio": float("nan")}, "keep_ratio must be a number; got nan"),
        ({**LEAST, "keep_ratio": 3}, r"in \(0, 1\].*got 3"),
        ({**LEAST, "softmax": "all"}, "softmax must be image or prompt; got 'all'"),
        ({**LEAST, "path": 2025}, "path must be text .* got 2025"),
        ({**LEAST, "dtype": "int4"}, "got 'int4'"),
        ({**LEAST, "layer": "null"}, "layer must be a whole number or auto; got 'null'"),
        ({**LEAST, "batch_size": "auto"}, "batch_size must be a whole number; got 'auto'"),
        ({**LEAST, "batch_size": 0}, "batch_size must be at least 1; got 0"),
        (
            {"model": "qwen25vl", "pruner": "sparsevlm", "layers": 3},
            r"such as \[3,7,16\] or auto; got 3",
        ),
        (
            {"model": "qwen25vl", "pruner": "random", "prune_earlier_kv": 1},
            "must be true or false; got 1",
        ),
    ],
)
def test_a_mistake_is_a_sentence(given, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        Arguments.parse(given)


def test_a_choice_is_checked_whatever_the_class_does() -> None:
    with pytest.raises(UserError, match="side must be left or right; got 'up'"):
        read("side", "up", Literal["left", "right"])


def test_a_name_of_both_parts_needs_its_prefix(monkeypatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Layered(Qwen25VL):
        layer: int = 1

    def known(folder: str, base: type):
        return {"layered": Layered} if folder == "models" else stems(folder, base)

    monkeypatch.setattr(choices, "stems", known)
    given = {**LEAST, "model": "layered"}
    with pytest.raises(UserError, match=r"write model\.layer or pruner\.layer"):
        Arguments.parse({**given, "layer": 4})
    parsed = Arguments.parse({**given, "model.layer": 2, "pruner.layer": 3})
    assert (parsed.model.layer, parsed.pruner.layer) == (2, 3)
    assert "model.layer=2" in str(parsed)
    assert "pruner.layer=3" in str(parsed)


def test_the_whole_record_names_every_field() -> None:
    words = [word.partition("=")[0] for word in str(Arguments.parse(LEAST)).split(",")]
    parts = (Qwen25VL, IVCPrune, RequestOptions)
    assert words == [
        name
        for part, first in zip(parts, ("model", "pruner", None), strict=True)
        for name in (first, *(field.name for field in fields(part)))
        if name
    ]
