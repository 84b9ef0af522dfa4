"""Which methods vLLM can serve, and what a wrong request is answered with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ivcp import DivPrune
from ivcp.core.errors import UserError
from ivcp.integrations.vllm.plugin import hf_overrides
from ivcp.integrations.vllm.settings import canonical, merged, pruner_of


def pruner(**settings: Any) -> Any:
    return pruner_of(canonical(settings), "qwen2_5_vl", 28, 3)


def test_a_method_acts_before_the_language_model() -> None:
    assert pruner(pruner="divprune", keep_ratio=0.25) == DivPrune(keep_ratio=0.25)
    assert pruner(pruner="ivc").layer == 0
    assert pruner() is None
    assert pruner(pruner="none") is None
    assert pruner(pruner="plus_ivc", base={"pruner": "divprune"}).stages()[0].layer == 0


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pruner": "divprun"}, r"^ivcp must name a pruner, one of .*; did you mean divprune"),
        ({"keep_ratio": 0.5}, r"^ivcp must name a pruner, one of .*; got None"),
        ({"pruner": "ivc", "ratio": 0.5}, r"^ivc has the settings .*; did you mean keep_ratio\?"),
        ({"pruner": "ivc", "keep_ratio": 2}, r"^keep_ratio must be a number in \(0, 1\]"),
        ({"pruner": "ivc", "layer": 3}, r"^vLLM can prune before the language model only"),
        ({"pruner": "sparsevlm"}, r"^vLLM can prune before the language model only"),
        ({"pruner": "ivcp"}, r"^IVCPrune needs the signal values, but a model in vLLM provides"),
        ({"pruner": "visionzip", "renumber": True}, r"keeps the original positions"),
        ({"pruner": "vispruner", "tower_layer": 7}, r"looks at layer 7 of the vision tower"),
        ({"pruner": "downsample"}, r"resizes images: send smaller images"),
        ({"pruner": "pool", "renumber": True}, r"keeps the original positions"),
        ({"pruner": "plus_ivc"}, r"^plus_ivc cannot be made of"),
        ({"pruner": "ivc", "offset": "far"}, r"offset"),
    ],
)
def test_what_cannot_be_served(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        pruner(**settings)


def test_settings_that_are_none() -> None:
    with pytest.raises(UserError, match=r"^ivcp must hold settings such as"):
        merged(None, "ivc")
    with pytest.raises(UserError, match=r"^ivcp must hold numbers, words and lists"):
        canonical({"pruner": {1}})


def test_which_checkpoints_can_be_served() -> None:
    config = SimpleNamespace(architectures=["Qwen3VLForConditionalGeneration"])
    name = ["PrunedQwen3VL"]
    assert hf_overrides(config) == {"architectures": name}
    settings = {"pruner": "ivc", "keep_ratio": 0.5}
    assert hf_overrides(config, settings) == {"architectures": name, "ivcp": settings}
    config = SimpleNamespace(architectures=["InternVLForConditionalGeneration"])
    with pytest.raises(UserError, match=r"^vLLM can prune Qwen2VL.*; got InternVLFor"):
        hf_overrides(config)


def test_rope_as_three_equal_rows() -> None:
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = SimpleNamespace(rope_parameters=rope, hidden_size=4096, num_attention_heads=32)
    config = SimpleNamespace(
        architectures=["LlavaForConditionalGeneration"], get_text_config=lambda: text
    )
    parameters = hf_overrides(config)["text_config"]["rope_parameters"]
    assert parameters == {**rope, "mrope_section": [22, 21, 21]}
