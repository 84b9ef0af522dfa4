"""GLM's rotation, in which even and odd dimensions are pairs, against the library's."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from transformers.models.glm4v.modeling_glm4v import apply_rotary_pos_emb

from ivcp.models.decoders import rotated_pairs


def test_both_forms_of_angles() -> None:
    torch.manual_seed(0)
    sections, half = [8, 12, 12], 32
    states = torch.randn(2, 3, 5, 128)
    axes = torch.randn(3, 2, 5, half)  # the angles of time, row and column
    taken = torch.cat([part[i] for i, part in enumerate(axes.split(sections, -1))], -1)
    cos, sin = (angles.repeat_interleave(2, -1) for angles in (taken.cos(), taken.sin()))
    expected, _ = apply_rotary_pos_emb(states, states, cos, sin)
    parameters = SimpleNamespace(rope_parameters={"mrope_section": sections})
    layer = SimpleNamespace(self_attn=SimpleNamespace(config=parameters))
    torch.testing.assert_close(rotated_pairs(layer, states, (cos, sin)), expected)
    twice = torch.cat([axes, axes], -1)  # until transformers 5.16
    torch.testing.assert_close(rotated_pairs(layer, states, (twice.cos(), twice.sin())), expected)
