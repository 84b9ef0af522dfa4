"""Copies of small host tensors to the device that the model runs on."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host tensor on `device`; the host does not wait for the device.

    A tensor that is on `device` already is returned as it is.
    """
    return tensor.to(device, non_blocking=True)
