"""Devices that are not here are refused before weights are read."""

from __future__ import annotations

import pytest
import torch

from ivcp.core.errors import UserError
from ivcp.models.device_map import check_device_map
from ivcp.models.qwen25vl import Qwen25VL


@pytest.mark.parametrize("choice", ["gpu", "cuda:x", ""])
def test_a_text_that_names_no_device(choice: str) -> None:
    with pytest.raises(UserError, match=r"model\.device_map must be null, auto, .*; got '"):
        Qwen25VL(path=None, device_map=choice).load()


@pytest.mark.parametrize("choice", ["cuda:99", "meta", "cpu:1"])
def test_a_device_that_is_not_here(choice: str) -> None:
    with pytest.raises(UserError, match=rf"model\.device_map={choice} names a device that is not"):
        check_device_map(choice)


@pytest.mark.parametrize("choice", [None, "auto", "sequential", "cpu", "cuda", "cuda:1"])
def test_devices_that_are_here(choice: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device_map(choice)
