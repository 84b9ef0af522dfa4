"""What older versions of `transformers` do otherwise: it is read, or refused with one sentence."""

from __future__ import annotations

import pytest
import torch
import transformers
from packaging.version import Version
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Attention

from ivcp import pruned
from ivcp.core.errors import LibraryTooOldError
from ivcp.models.decoders import rotated
from ivcp.models.deepseekvl2 import DeepSeekVL2
from ivcp.pruners.uniform import UniformGrid
from ivcp.testing import batch_of, model_of


def test_only_an_old_library_lacks_deepseek_vl2() -> None:
    try:
        DeepSeekVL2()._model_class()
    except LibraryTooOldError:
        assert Version(transformers.__version__) < Version("5.15")
    else:
        assert Version(transformers.__version__) >= Version("5.15")


def test_a_library_without_latents_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(DeepseekV2Attention, "expand_kv", raising=False)
    for read in (DeepSeekVL2().depth, DeepSeekVL2().load):
        with pytest.raises(LibraryTooOldError, match=r"^DeepSeek-VL2 needs transformers>=5\.15; "):
            read()


def test_checkpoints_around_hooks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    call = nn.Module.__call__
    monkeypatch.setattr(GradientCheckpointingLayer, "__call__", call, raising=False)
    model = model_of("llava15")
    layer = model.model.language_model.layers[0]
    monkeypatch.setattr(layer, "training", True)
    monkeypatch.setattr(layer, "gradient_checkpointing", True)
    inputs = batch_of("llava15").inputs
    with (
        pruned(model, UniformGrid(keep_ratio=0.5, layer=2)),
        pytest.raises(LibraryTooOldError, match=r"^Gradient checkpointing inside pruned\(\) needs"),
    ):
        model(**inputs)


def test_angles_of_each_axis_are_read_in_sections() -> None:
    layer = model_of("qwen25vl").model.language_model.layers[0]
    states = torch.randn(2, 4, 5, 16)
    cos, sin = torch.randn(2, 3, 2, 5, 16)  # axes, B, R, D
    axis = [0, 0, 1, 1, 1, 2, 2, 2] * 2  # of each channel
    one = tuple(
        torch.stack([angles[axis[channel], ..., channel] for channel in range(16)], -1)
        for angles in (cos, sin)
    )
    assert torch.equal(rotated(layer, states, (cos, sin)), rotated(layer, states, one))
