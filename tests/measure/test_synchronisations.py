"""Synchronisations are counted inside layers only."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from ivcp.measure.synchronisations import SYNC_WARNING, counted_syncs


def test_synchronisations_count_inside_layers_only(monkeypatch) -> None:
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def wait(*_: object) -> None:
        if modes[-1] == "warn":
            warnings.warn(SYNC_WARNING, stacklevel=1)

    layers = nn.ModuleList([nn.Identity(), nn.Identity()])
    with counted_syncs(layers) as messages:
        handle = layers[1].register_forward_pre_hook(wait)  # as a session's hooks do
        for layer in layers:
            wait()
            layer(torch.zeros(1))
        handle.remove()
    assert len(messages) == 1
    assert modes[-1] == "default"
